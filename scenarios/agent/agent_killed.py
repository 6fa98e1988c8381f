"""The agent is killed: connections go on, policy holds, and the next agent takes over as it was."""

from lab import Lab, Pod, Service, scenario
from lab.policy.objects import NetworkPolicy, Selector
from topologies.two_nodes import topology


@scenario(topology)
def agent_killed(lab: Lab) -> None:
    """One connection through a service lives through it all."""
    client = lab.pod("client")
    lab.apply(Service(name="echo", ports=(8080,), backends=("server",)))
    lab.apply(NetworkPolicy(name="closed", pod_selector=Selector.of(app="other")))
    address = lab.service("echo").address
    with lab.pod("server").serve_tcp(8080), client.session(address, 8080) as flow:
        lab.check("a connection through the service", flow.echo(b"before") == b"before")
        lab.agent.kill()
        lab.check("there is no agent", not lab.agent.running)
        lab.check("the connection goes on", flow.echo(b"without") == b"without")
        lab.check("new ones are made", client.connect(address, 8080, payload=b"?").ok)
        lab.check("policy holds", not client.ping(lab.pod("other"), timeout_s=0.3).ok)
        lab.agent.start()
        lab.check("the next agent knows the service", lab.service("echo").address == address)
        lab.add_pod(Pod("late", node="beta", labels={"app": "late"}))
        lab.check("it attaches a new pod", client.ping(lab.pod("late")).ok)
        lab.delete("networkpolicy/default/closed")
        lab.check("it takes back a policy", client.ping(lab.pod("other")).ok)
        lab.check("still the same connection", flow.echo(b"after") == b"after")
