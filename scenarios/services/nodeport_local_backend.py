"""NodePort to a backend on the same node: it sees its client, who hears from the service."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology

WALK = ("alpha from-netdev", "alpha from-host", "alpha from-container", "alpha to-netdev")


@scenario(topology)
def nodeport_local_backend(lab: Lab) -> None:
    """From outside to alpha, whose pod web serves; no tunnel, no address of the node's own."""
    port = ServicePort(80, 8080, "UDP", node_port=30080)
    lab.apply(Service(name="echo", kind="NodePort", ports=(port,), backends=("web",)))
    with lab.pod("web").serve_udp(8080) as web:
        seen = lab.follow("world", "alpha", port=30080, listen=False)
        (peer, _), *_ = web.report()["peers"]
        answered = lab.world.send_udp(lab.node("alpha"), 30080).ok
    lab.check("the client is answered", answered)
    lab.check("the backend sees the client", peer == str(lab.facts.gateway))
    lab.check("the way there and back", seen.walk == WALK, detail=str(seen.walk))
