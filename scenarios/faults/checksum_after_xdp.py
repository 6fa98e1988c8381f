"""XDP changes a packet and not its checksum: whoever checks that first drops it, if anybody does.

client ──► alpha/lxcclient: a program changes the payload (UDP: server, step 16) or the TTL (IP:
step 10), or sends the frame on before the checksum was made (UDP again)
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, lesson, turned
from lab.trace import Step
from topologies.single_node import topology

MADE = Switch("client", on=("ethtool -K eth0 tx off",), off=("ethtool -K eth0 tx on",))
POLLS = Switch("server", on=("ethtool -K eth0 gro on",), off=("ethtool -K eth0 gro off",))
UDP_SUM = {"place": "server", "hook": "udp_rcv", "step": Step.L4_RECEIVE, "reason": "UDP_CSUM"}
IP_SUM = {"place": "server", "hook": "ip_rcv", "step": Step.IP_RCV, "reason": "IP_CSUM"}
CHANGED = "at alpha/lxcclient changed it and not its checksum"


def program(name: str) -> Switch:
    """One of the lesson's programs, on the node's end of the client's cable."""
    device = "ip link set dev lxcclient xdpdrv"
    return Switch("alpha", (f"{device} obj {{verdicts}} sec xdp/{name}",), (f"{device} off",))


def past_the_node(lab: Lab) -> Switch:
    """The client sends to the server's own MAC address: no program has to put it there."""
    server = lab.pod("server")
    way = f"{server.address} dev eth0"
    on = (f"ip route add {way}", f"ip neigh replace {way} lladdr {server.facts.mac}")
    return Switch("client", on, (f"ip neigh del {way}", f"ip route del {way}"))


@scenario(topology)
def checksum_after_xdp(lab: Lab) -> None:
    """Three programs; and the first again, where nobody checks."""
    lab.pod("client").ping(lab.pod("server"))  # so that no ARP question meets the program first
    aside = (POLLS, past_the_node(lab), program("aside"))
    for faults, key in (
        ((MADE, program("payload")), Ends(**UDP_SUM, why=f"xdp_payload {CHANGED}")),
        ((MADE, program("header")), Ends(**IP_SUM, why=f"xdp_header {CHANGED}")),
        (aside, Ends(**UDP_SUM, why="sent the packet on as a frame, which does not say so")),
    ):
        lesson(lab, turned(lab, *faults), key)
    with program("payload").turned(lab):
        trace = lab.follow("client", "server").packets[0]
    changed = any(
        b"hello" in (h.before or b"") and b"Hello" in (h.after or b"") for h in trace.hops
    )
    lab.check("a checksum that nobody made yet hides the change", trace.delivered and changed)
