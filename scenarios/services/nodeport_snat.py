"""NodePort to a backend elsewhere: the node puts its own address, so the answer passes it again."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology


@scenario(topology)
def nodeport_snat(lab: Lab) -> None:
    """From outside to alpha, whose backend is on beta."""
    port = ServicePort(80, 8080, "UDP", node_port=30080)
    lab.apply(Service(name="echo", kind="NodePort", ports=(port,), backends=("server",)))
    with lab.pod("server").serve_udp(8080) as server:
        seen = lab.follow("world", "alpha", port=30080, listen=False)
        (peer, _), *_ = server.report()["peers"]
        answered = lab.world.send_udp(lab.node("alpha"), 30080).ok
    lab.check("the client is answered", answered)
    lab.check("the backend sees alpha, not the client", peer == str(lab.node("alpha").facts.router))
    lab.check("the request is turned round on alpha's uplink", seen.walk[:2] ==
              ("alpha from-netdev", "alpha to-overlay"), detail=str(seen.walk))  # fmt: skip
    lab.check("the answer passes alpha again", seen.walk[-2:] ==
              ("alpha from-overlay", "alpha to-netdev"))  # fmt: skip
