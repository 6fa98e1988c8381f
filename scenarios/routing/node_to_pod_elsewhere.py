"""A node reaches another node's pod through the tunnel, as remote-node: no one's host there."""

from lab import Lab, scenario
from lab.policy.objects import NetworkPolicy, Selector
from topologies.two_nodes import topology

REMOTE_NODE = 6
WALK = ("alpha from-host", "alpha to-overlay", "alpha to-netdev",
        "beta from-netdev", "beta from-overlay")  # fmt: skip


@scenario(topology)
def node_to_pod_elsewhere(lab: Lab) -> None:
    """alpha's own stack to server on beta; then under a policy that lets nobody in."""
    server = lab.pod("server")
    with server.serve_udp(5000, reply=b"not followed"):
        seen = lab.follow("alpha", "server", port=5000, listen=False, witness=None)
    lab.check("by from-host into the tunnel", seen.walk == WALK, detail=str(seen.walk))
    hops = seen.packets[0].at("beta", device="eth0")
    wrapped = {hop.identity for hop in hops if hop.identity is not None}
    lab.check("the tunnel calls it remote-node", wrapped == {REMOTE_NODE}, detail=str(wrapped))
    lab.apply(NetworkPolicy(name="closed", pod_selector=Selector.of(app="server")))
    lab.check("policy lets the pod's own node in", lab.node("beta").ping(server).ok)
    lab.check("but not this one", not lab.node("alpha").ping(server, timeout_s=0.3).ok)
