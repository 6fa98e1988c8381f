"""A frame with the wrong destination address reaches every port, and ends where IP first looks.

alpha has a stale neighbour entry for beta ──► beta/eth0: step 10, OTHERHOST
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, lesson
from lab.trace import Step
from topologies.two_nodes import topology

FAULT = Switch(
    "alpha",
    on=("ip neigh replace 172.30.0.2 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",),
    off=("ip neigh del 172.30.0.2 dev eth0",),
)
KEY = Ends(place="beta", hook="ip_rcv", step=Step.IP_RCV, reason="OTHERHOST", why="ip neigh")


@scenario(topology)
def wrong_mac(lab: Lab) -> None:
    """With the stale entry, and without."""
    lesson(lab, FAULT, KEY)
