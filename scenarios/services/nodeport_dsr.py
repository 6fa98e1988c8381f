"""NodePort with direct server return: the backend's node answers the client itself."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology


@scenario(topology, routing="native", nodeport_mode="dsr")
def nodeport_dsr(lab: Lab) -> None:
    """From outside to alpha, whose backend is on beta; the service's address travels along."""
    port = ServicePort(80, 8080, "UDP", node_port=30080)
    lab.apply(Service(name="echo", kind="NodePort", ports=(port,), backends=("server",)))
    with lab.pod("server").serve_udp(8080) as server:
        seen = lab.follow("world", "alpha", port=30080, listen=False)
        (peer, _), *_ = server.report()["peers"]
        answered = lab.world.send_udp(lab.node("alpha"), 30080).ok
    lab.check("the client is answered", answered)
    lab.check("the backend sees the client", peer == str(lab.facts.gateway))
    answer = seen.walk[seen.walk.index("beta from-container") :]
    lab.check("the answer leaves beta", "beta to-netdev" in answer, detail=str(answer))
    lab.check("and never meets alpha", not any(hook.startswith("alpha") for hook in answer))
