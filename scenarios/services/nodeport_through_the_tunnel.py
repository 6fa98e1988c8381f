"""A pod asks for a NodePort at the address of another node's cilium_host: through the tunnel."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology

THERE = ("alpha from-container", "alpha to-overlay", "alpha to-netdev",
         "beta from-netdev", "beta from-overlay")  # fmt: skip
BACK = ("beta from-container", "beta to-overlay", "beta to-netdev",
        "alpha from-netdev", "alpha from-overlay")  # fmt: skip


@scenario(topology)
def nodeport_through_the_tunnel(lab: Lab) -> None:
    """The backend is on that node; then on the client's own, where nobody expects it."""
    port = ServicePort(80, 8080, "UDP", node_port=30080)
    router = lab.node("beta").facts.router
    lab.apply(Service(name="echo", kind="NodePort", ports=(port,), backends=("server",)))
    with lab.pod("server").serve_udp(8080) as server:
        seen = lab.follow("client", str(router), port=30080, listen=False)
        answered = lab.pod("client").send_udp(router, 30080).ok
        peers = {peer for peer, _ in server.report()["peers"]}
    lab.check("the client is answered", answered)
    lab.check("the backend sees it", peers == {str(lab.pod("client").address)})
    lab.check("the way there and back", seen.walk == THERE + BACK, detail=str(seen.walk))
    lab.apply(Service(name="echo", kind="NodePort", ports=(port,), backends=("web",)))
    with lab.pod("web").serve_udp(8080) as web:
        lab.check("so it is by the pod beside it", lab.pod("client").send_udp(router, 30080).ok)
        peers = {peer for peer, _ in web.report()["peers"]}
    lab.check("which sees beta's router", peers == {str(router)}, detail=str(peers))
