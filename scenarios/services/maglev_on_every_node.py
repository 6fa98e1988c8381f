"""With Maglev every node sends the same flow to the same backend, without asking each other."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology


@scenario(topology, lb_algorithm="maglev")
def maglev_on_every_node(lab: Lab) -> None:
    """Twenty flows to a load balancer, once through alpha and once through beta."""
    port = ServicePort(53, 5353, "UDP")
    lab.apply(Service(name="dns", kind="LoadBalancer", ports=(port,), backends=("web", "server")))
    frontends = lab.service("dns").frontends
    (address,) = [item.address for item in frontends if item.kind == "LoadBalancer"]

    def answers(node: str) -> list[bytes]:
        route = ["ip", "route", "replace", f"{address}/32", "via", str(lab.node(node).address)]
        lab.world.run(route, check=True)
        return [lab.world.send_udp(address, 53, source_port=20000 + n).reply for n in range(20)]

    with (
        lab.pod("web").serve_udp(5353, reply=b"web"),
        lab.pod("server").serve_udp(5353, reply=b"server"),
    ):
        by_alpha, by_beta = answers("alpha"), answers("beta")
    lab.check("both backends get flows", set(by_alpha) == {b"web", b"server"})
    lab.check("each flow has the same backend on both nodes", by_alpha == by_beta)
