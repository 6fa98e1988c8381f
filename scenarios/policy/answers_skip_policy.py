"""Answers need no rule: conntrack knows whom the pod has asked."""

from lab import Lab, scenario
from lab.policy.objects import NetworkPolicy, Selector
from topologies.two_nodes import topology


@scenario(topology)
def answers_skip_policy(lab: Lab) -> None:
    """A client that nobody may talk to, talks."""
    client, server = lab.pod("client"), lab.pod("server")
    lab.apply(NetworkPolicy(name="closed", pod_selector=Selector.of(app="client")))
    lab.check("nobody gets through to the client", not server.ping(client, timeout_s=0.3).ok)
    seen = lab.follow("client", "server", port=5000)
    with server.serve_udp(5001):
        lab.check("what the client asks is answered", client.send_udp(server, 5001).ok)
    states = [hop.ct_state for hop in seen.packets[-1].taken if hop.ct_state]
    lab.check("the answer is of a known flow on both nodes", states == ["reply", "reply"],
              detail=str(states))  # fmt: skip
    lab.check("and nothing was dropped", not seen.drops)
