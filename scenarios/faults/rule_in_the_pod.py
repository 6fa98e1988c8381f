"""A netfilter rule in the server's pod drops the packet in exactly the hook it was hung into.

client ──► server: step 11 (prerouting) or step 14 (input), NETFILTER_DROP
"""

from lab import Lab, scenario
from lab.trace import Step
from topologies.two_nodes import topology

PLACES = {"prerouting": Step.NETFILTER_PREROUTING, "input": Step.IP_LOCAL_DELIVER}


@scenario(topology)
def rule_in_the_pod(lab: Lab) -> None:
    """The same rule in two hooks, and none."""
    server = lab.pod("server")
    for hook, step in PLACES.items():
        chain = f"{{ type filter hook {hook} priority 0; policy drop; }}"
        rule = f"add table ip t; add chain ip t c {chain}"
        server.run(["nft", rule], check=True)
        drop = lab.follow("client", "server").packets[0].drops[0]
        server.run(["nft", "delete table ip t"], check=True)

        lab.check(f"a rule in {hook} drops at its step", drop.step is step)
        lab.check(f"the reason names netfilter ({hook})", drop.drop_reason == "NETFILTER_DROP")
    lab.check("without the rule it arrives", lab.follow("client", "server").packets[0].delivered)
