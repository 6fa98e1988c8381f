"""A classifier program on the server's device drops the packet at step 8.

client ──► server/eth0, tc ingress: TC_INGRESS
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, lesson
from lab.trace import Step
from topologies.two_nodes import topology

FAULT = Switch(
    "server",
    on=(
        "tc qdisc add dev eth0 clsact",
        "tc filter add dev eth0 ingress bpf da obj {verdicts} sec tc/drop",
    ),
    off=("tc qdisc del dev eth0 clsact",),
)
KEY = Ends(
    place="server", hook="tc_ingress", step=Step.TC_INGRESS, reason="TC_INGRESS",
    why="tc filter show dev eth0 ingress",
)  # fmt: skip


@scenario(topology)
def classifier_in_the_pod(lab: Lab) -> None:
    """With the program, and without."""
    lesson(lab, FAULT, KEY)
