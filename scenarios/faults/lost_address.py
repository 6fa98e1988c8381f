"""A pod that has lost its address gets its packets still, and its own routing refuses them.

client ──► server, whose eth0 has no address: step 13, IP_INADDRERRORS
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, lesson
from lab.trace import Step
from topologies.two_nodes import topology

FAULT = Switch(
    "server",
    on=("ip addr del 10.0.2.10/32 dev eth0",),
    off=(
        "ip addr add 10.0.2.10/32 dev eth0",
        "ip route replace 10.0.2.1 dev eth0 scope link",
        "ip route replace default via 10.0.2.1 dev eth0 mtu 1450",
    ),
)
KEY = Ends(
    place="server", hook="ip_routing", step=Step.IP_ROUTING, reason="IP_INADDRERRORS",
    why="server does not have the address 10.0.2.10",
)  # fmt: skip


@scenario(topology)
def lost_address(lab: Lab) -> None:
    """With the address gone, and back."""
    lesson(lab, FAULT, KEY)
