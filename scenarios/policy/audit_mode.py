"""In audit mode a closed policy judges every packet and drops none."""

from lab import Lab, scenario
from lab.policy.objects import NetworkPolicy, Selector
from topologies.two_nodes import topology


@scenario(topology, policy_audit=True)
def audit_mode(lab: Lab) -> None:
    """A policy that lets nobody in, no entry that would, and a packet that gets in."""
    server = lab.pod("server")
    lab.apply(NetworkPolicy(name="closed", pod_selector=Selector.of(app="server")))
    closed = {item.pod for item in lab.agent.endpoints() if item.ingress}
    lab.check("the policy is in force at server alone", closed == {"server"}, detail=str(closed))
    with lab.node("beta").map(f"cilium_policy_{server.facts.endpoint_id:05d}") as entries:
        allowed = [key for key, _ in entries.items() if not key.egress]
    hosts = {key.sec_label for key in allowed}
    lab.check("no entry lets the client in", hosts <= {1}, detail=str(hosts))
    trace = lab.follow("client", "server").packets[0]
    lab.check("the packet gets in all the same", trace.delivered)
    lab.check("nothing dropped it", not [hop for hop in trace.drops if hop.program])
