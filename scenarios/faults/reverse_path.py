"""Strict reverse path filtering drops what comes from where it would not be sent back.

server reaches client through lo, says its table ──► client's packet comes through eth0: step 13
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, lesson
from lab.trace import Step
from topologies.two_nodes import topology

FAULT = Switch(
    "server",
    on=("sysctl -q -w net.ipv4.conf.eth0.rp_filter=1", "ip route add 10.0.1.10 dev lo"),
    off=("ip route del 10.0.1.10 dev lo", "sysctl -q -w net.ipv4.conf.eth0.rp_filter=0"),
)
KEY = Ends(
    place="server", hook="ip_routing", step=Step.IP_ROUTING, reason="IP_RPFILTER", why="rp_filter"
)


@scenario(topology)
def reverse_path(lab: Lab) -> None:
    """With the other route back, and without."""
    lesson(lab, FAULT, KEY)
