"""One route per pod: packets reach it through the stack, and to-container enforces its policy."""

from lab import Lab, scenario
from lab.policy.objects import NetworkPolicy, Selector
from topologies.two_nodes import topology


@scenario(topology, endpoint_routes=True)
def endpoint_routes(lab: Lab) -> None:
    """Two pods of one node, and one of another."""
    web = lab.pod("web")
    routes = lab.node("alpha").run(["ip", "route"]).stdout
    lab.check("alpha has a route to the pod itself", f"{web.address} dev {web.facts.lxc}" in routes)
    with web.serve_udp(5000, reply=b"not followed"):
        seen = lab.follow("client", "web", listen=False)
    walk = ("alpha from-container", "alpha to-container")
    lab.check("from-container, the stack, to-container", seen.walk == walk, detail=str(seen.walk))
    lab.apply(NetworkPolicy(name="closed", pod_selector=Selector.of(app="web")))
    for name in ("client", "server"):
        lab.check(f"policy holds against {name}", not lab.pod(name).ping(web, timeout_s=0.3).ok)
