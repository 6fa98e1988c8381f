"""BPF host routing: from pod to wire and from wire to pod, past the node's stack."""

from lab import Lab, scenario
from topologies.two_nodes import topology

WALK = ("alpha from-container", "alpha to-netdev", "beta from-netdev")


@scenario(topology, routing="native", host_routing="bpf")
def host_routing(lab: Lab) -> None:
    """The same packet as with legacy routing, with the stack left out."""
    lab.pod("client").ping(lab.pod("server"))
    with lab.pod("server").serve_udp(5000, reply=b"not followed") as server:
        seen = lab.follow("client", "server", listen=False)
        lab.check("the packet is delivered", server.received == 1)
    request = seen.packets[0]
    lab.check("the programs it meets", seen.walk == WALK, detail=str(seen.walk))
    names = {step.name for step in request.steps("beta")}
    lab.check("beta's IP layer never sees it", "IP_RCV" not in names, detail=str(names))
