"""Backends come and go; a running flow keeps its own, even one that is terminating."""

from dataclasses import replace

from lab import Backend, Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology

WEB = Service(name="web", ports=(ServicePort(80, 8080),), backends=("web",))


@scenario(topology)
def backends_change_under_flows(lab: Lab) -> None:
    """One connection from before; new ones after each change."""
    client = lab.pod("client")
    lab.apply(WEB)
    address = lab.service("web").address

    def asked() -> set[bytes]:
        return {client.connect(address, 80, payload=b"?").reply for _ in range(12)}

    with (
        lab.pod("web").serve_tcp(8080, reply=b"web"),
        lab.pod("server").serve_tcp(8080, reply=b"server"),
        client.session(address, 80) as flow,
    ):
        lab.check("the flow begins at web", flow.echo(b"1") == b"web")
        lab.apply(replace(WEB, backends=("web", "server")))
        lab.check("a second backend gets new flows", asked() == {b"web", b"server"})
        lab.check("the old flow stays at web", flow.echo(b"2") == b"web")
        lab.apply(replace(WEB, backends=(Backend(pod="web", terminating=True), "server")))
        lab.check("a terminating backend gets no new flow", asked() == {b"server"})
        lab.check("but keeps the one it has", flow.echo(b"3") == b"web")
