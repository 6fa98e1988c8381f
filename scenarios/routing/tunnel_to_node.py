"""What comes out of the tunnel for the node itself crosses cilium_net and meets to-host."""

from lab import Lab, scenario
from topologies.two_nodes import topology

WALK = ("alpha from-container", "alpha to-overlay", "alpha to-netdev",
        "beta from-netdev", "beta from-overlay", "beta to-host")  # fmt: skip


@scenario(topology)
def tunnel_to_node(lab: Lab) -> None:
    """client on alpha to the address of beta's cilium_host, where a process listens."""
    beta = lab.node("beta")
    with beta.serve_udp(5000, reply=b"not followed") as server:
        seen = lab.follow("client", str(beta.facts.router), port=5000, listen=False)
        lab.check("a process of the node gets it", server.received == 1)
        peers = {peer for peer, _ in server.report()["peers"]}
    lab.check("from the pod itself", peers == {str(lab.pod("client").address)})
    lab.check("the way", seen.walk == WALK, detail=str(seen.walk))
