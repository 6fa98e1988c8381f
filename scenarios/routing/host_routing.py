"""BPF host routing: from pod to wire and from wire to pod, past the node's stack."""

from lab import Lab, scenario
from topologies.two_nodes import topology

WALK = ("alpha from-container", "alpha to-netdev", "beta from-netdev")


def forwarded(lab: Lab) -> int:
    """How many packets beta's IP layer has forwarded."""
    lines = lab.node("beta").run(["cat", "/proc/net/snmp"], check=True).stdout.splitlines()
    names, values = [line.split() for line in lines if line.startswith("Ip:")]
    return int(values[names.index("ForwDatagrams")])


@scenario(topology, routing="native", host_routing="bpf")
def host_routing(lab: Lab) -> None:
    """The same packet as with legacy routing, with the stack left out."""
    lab.pod("client").ping(lab.pod("server"))
    before = forwarded(lab)
    with lab.pod("server").serve_udp(5000, reply=b"not followed") as server:
        seen = lab.follow("client", "server", listen=False)
        lab.check("the packet is delivered", server.received == 1)
    request = seen.packets[0]
    lab.check("the programs it meets", seen.walk == WALK, detail=str(seen.walk))
    count = forwarded(lab) - before
    lab.check("beta's IP layer forwards nothing", count == 0, detail=str(count))
    names = {step.name for step in request.steps("beta")}
    lab.check("beta's IP layer never sees it", "IP_RCV" not in names, detail=str(names))
