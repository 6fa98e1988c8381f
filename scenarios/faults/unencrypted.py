"""A policy may ask for ESP and not insist: without a state the packet leaves in clear, silently.

client (level use, no state) ──clear──► server: taken, until the server insists
"""

from collections.abc import Iterator
from contextlib import contextmanager

from lab import Lab, scenario
from lab.scenarios.faults import UDP, Ends, lesson
from lab.scenarios.ipsec import demand, forget, pods
from lab.trace import Step
from topologies.two_nodes import topology

WORD = b"everybody on the way can read this"


@contextmanager
def asked(lab: Lab, *, insists: bool) -> Iterator[None]:
    """The client wants ESP if it can have it; the server wants it, or has no wishes."""
    ends = pods(lab)
    try:
        demand(lab, ends, "transport", "client", level="use")
        if insists:
            demand(lab, ends, "transport", "server")
        yield
    finally:
        forget(lab, ends)


@scenario(topology)
def unencrypted(lab: Lab) -> None:
    """The same datagram to a server that does not insist, and to one that does."""
    with asked(lab, insists=False):
        trace = lab.follow("client", "server", payload=WORD).packets[0]
    cable = [hop for hop in trace.at(namespace="underlay") if hop.before]
    clear = [WORD in (hop.before or b"") for hop in cable]
    lab.check("it arrives though nothing encrypted it", trace.delivered)
    lab.check("on the cable it can be read", clear and all(clear), detail=f"{clear}")
    insisted = Ends(
        place="server", hook="xfrm_policy_l4", step=Step.XFRM_POLICY_L4, reason="XFRM_POLICY",
        why="it came in clear",
    )  # fmt: skip
    lesson(lab, asked(lab, insists=True), insisted, UDP)
