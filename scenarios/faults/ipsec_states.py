"""Both ends of IPsec must know the same: without it packets vanish, and the kernel says nothing.

No drop reason, no ICMP, only counters: four ways to lose a packet, told from each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from lab import Lab, scenario
from lab.scenarios.faults import Ends, lesson
from lab.scenarios.ipsec import OTHER_KEY, associate, demand, forget, pods
from lab.trace import Step
from topologies.two_nodes import topology


def at_server(reason: str, why: str) -> Ends:
    """ESP's handler gave the packet up."""
    return Ends(place="server", hook="xfrm4_esp_rcv", step=Step.L4_RECEIVE, reason=reason, why=why)


@contextmanager
def set_up(lab: Lab, *, without: str = "", key: str = "", again: bool = False) -> Iterator[None]:
    """Transport mode between the pods, with something wrong."""
    ends = pods(lab)
    try:
        for end in ends:
            demand(lab, ends, "transport", end.place)
            if end.place != without:
                own = {"key": key} if key and end.place == "server" else {}
                associate(lab, ends, "transport", end.place, **own)
        if again:
            lab.pod("client").send_udp(lab.pod("server"), 5000, timeout_s=0.2)
            lab.pod("client").run(["ip", "xfrm", "state", "flush"], check=True)
            associate(lab, ends, "transport", "client")
        yield
    finally:
        forget(lab, ends)


@scenario(topology, datapath=False, endpoint_routes=True, routing="native")
def ipsec_states(lab: Lab) -> None:
    """A state that is missing, wrong or new; the policies are the same."""
    lab.needs("esp")
    lab.needs("fentry")
    lab.pod("client").ping(lab.pod("server"))
    nowhere = Ends(
        place="client", hook="xfrm_output", reason="XfrmOutNoStates", why="there is no state"
    )
    lesson(lab, set_up(lab, without="client"), nowhere)
    lesson(lab, set_up(lab, without="server"), at_server("XfrmInNoStates", "has the packet's SPI"))
    wrong = at_server("XfrmInStateProtoError", "the sender's key is another")
    lesson(lab, set_up(lab, key=OTHER_KEY), wrong)
    # who begins to count anew with the old SPI sends numbers that were used
    lesson(lab, set_up(lab, again=True), at_server("XfrmInStateSeqError", "for a replay"))
