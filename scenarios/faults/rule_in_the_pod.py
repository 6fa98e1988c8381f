"""A netfilter rule drops the packet in exactly the hook that it was hung into.

client ──► server: out of the client, on the server's device (step 9), before its routing
(step 11), or before delivery (step 14); always NETFILTER_DROP
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, lesson
from lab.trace import Step
from topologies.two_nodes import topology

PLACES = (
    ("server", "netdev", "ingress device eth0", "nf_ingress", Step.NETFILTER_INGRESS),
    ("server", "ip", "prerouting", "nf_prerouting", Step.NETFILTER_PREROUTING),
    ("server", "ip", "input", "nf_input", Step.IP_LOCAL_DELIVER),
    ("client", "ip", "output", "nf_output", None),
)


@scenario(topology)
def rule_in_the_pod(lab: Lab) -> None:
    """The same rule in four hooks."""
    for place, family, hook, name, step in PLACES:
        chain = f"{{ type filter hook {hook} priority 0 ; policy drop ; }}"
        rule = Switch(
            place,
            on=(f"nft add table {family} t", f"nft add chain {family} t c {chain}"),
            off=(f"nft delete table {family} t",),
        )
        key = Ends(place=place, hook=name, step=step, reason="NETFILTER_DROP", why="nft list")
        lesson(lab, rule, key)
