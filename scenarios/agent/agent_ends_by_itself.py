"""An agent that ends by a defect of its own is followed by another, and no connection notices."""

from lab import Lab, Service, ServicePort, scenario
from lab.waiting import eventually
from topologies.two_nodes import topology


@scenario(topology)
def agent_ends_by_itself(lab: Lab) -> None:
    """The signal of a crash; a connection from before; a service for the next agent to know."""
    client, server = lab.pod("client"), lab.pod("server")
    lab.apply(Service(name="web", ports=(ServicePort(80, 8080),), backends=("server",)))
    address, first = lab.service("web").address, lab.agent.status()
    with server.serve_tcp(8080), client.session(address, 80) as session:
        session.echo(b"before")
        lab.node("alpha").run(["kill", "-SEGV", str(first.pid)], check=True)
        lab.check("the connection goes on", session.echo(b"meanwhile") == b"meanwhile")
        eventually(lambda: lab.agent.life().restarts, within_s=20)
        lab.agent.close()
        second = lab.agent.status()
        lab.check("another agent has come", second.started == first.started + 1)
        lab.check("it knows how the first one ended", "SIGSEGV" in lab.agent.life().ended)
        lab.check("and its services", lab.service("web").address == address)
        lab.check("the connection still goes on", session.echo(b"after") == b"after")
