"""Every router takes one off a packet's time to live; the datapath is a router on each node.

client sends with TTL 1 ──► alpha lets it pass to the tunnel, beta's from-overlay does not deliver
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, lesson
from lab.trace import Step
from topologies.two_nodes import topology

FAULT = Switch(
    "client",
    on=("sysctl -q -w net.ipv4.ip_default_ttl=1",),
    off=("sysctl -q -w net.ipv4.ip_default_ttl=64",),
)
KEY = Ends(
    place="beta", hook="cil_from_overlay", step=Step.TC_INGRESS, reason="TTL_EXCEEDED",
    why="time to live",
)  # fmt: skip


@scenario(topology)
def short_life(lab: Lab) -> None:
    """One hop too few, and the usual 64."""
    lesson(lab, FAULT, KEY)
