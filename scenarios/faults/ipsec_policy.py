"""An IPsec policy is asked late: UDP, TCP and ICMP ask for themselves, when they know the ports.

client ──► server: step 17, XFRM_POLICY; step 15 is for protocols that do not ask for themselves
"""

from lab import Lab, scenario
from lab.scenarios.faults import ICMP, TCP, UDP, Ends, Switch, lesson
from lab.trace import Step
from topologies.two_nodes import topology

FAULT = Switch(
    "server",
    on=("ip xfrm policy add dir in src 0.0.0.0/0 dst 0.0.0.0/0 action block",),
    off=("ip xfrm policy flush",),
)
KEY = Ends(
    place="server", hook="xfrm_policy_l4", step=Step.XFRM_POLICY_L4, reason="XFRM_POLICY",
    why="ip xfrm policy",
)  # fmt: skip


@scenario(topology)
def ipsec_policy(lab: Lab) -> None:
    """The same policy against three protocols."""
    for shot in (UDP, TCP, ICMP):
        lesson(lab, FAULT, KEY, shot)
