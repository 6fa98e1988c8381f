"""A packet that arrives is not a conversation: the answer needs a way of its own.

client ── SYN ──► server, which has no route back: nothing is dropped, and nothing answers
"""

from lab import Lab, scenario
from lab.scenarios.faults import TCP, Switch, attempt
from lab.trace import Step
from topologies.two_nodes import topology

FAULT = Switch(
    "server",
    on=("ip route del default",),
    off=("ip route add default via 10.0.2.1 dev eth0 mtu 1450",),
)


@scenario(topology)
def no_way_back(lab: Lab) -> None:
    """Without the server's route, and with it."""
    seen = attempt(lab, FAULT, TCP)
    syn, said = seen.packets[0], seen.answer.paragraph
    lab.check("the SYN reaches TCP", Step.L4_RECEIVE in syn.steps("server"))
    lab.check("nobody drops it", not syn.drops)
    lab.check("`lab why` finds the missing route", "server has no route back" in said, detail=said)
    with lab.pod("server").serve_tcp(80):
        lab.check("with it they talk", lab.pod("client").connect(lab.pod("server"), 80).ok)
