"""Pods leave the cluster with their node's address; answers find the way back."""

from lab import Lab, scenario
from topologies.two_nodes import topology


@scenario(topology)
def masquerade(lab: Lab) -> None:
    """Two pods of one node use the same source port at the same time."""
    world, node = lab.world, str(lab.node("alpha").address)
    with world.serve_tcp(443) as server:
        for name in ("client", "web"):
            answer = lab.pod(name).connect(world, 443, payload=b"hello", source_port=40000)
            lab.check(f"{name} is answered from outside", answer.reply == b"hello")
        peers = [tuple(peer) for peer in server.report()["peers"]]
    lab.check("outside sees the node only", {address for address, _ in peers} == {node})
    lab.check("one port each", len(set(peers)) == 2, detail=str(peers))
    ping = lab.pod("client").ping(world)
    lab.check("an echo request is answered too", ping.ok)
    lab.check("nobody outside knows the pod's address", not world.ping(
        lab.pod("client"), timeout_s=0.3).ok)  # fmt: skip
