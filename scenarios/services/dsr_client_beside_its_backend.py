"""With direct server return a client may stand beside its backend: the answer stays there."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology

WALK = ("alpha from-container", "alpha to-netdev", "beta from-netdev", "beta to-netdev",
        "alpha from-netdev", "alpha from-host", "alpha from-container")  # fmt: skip


@scenario(topology, routing="native", nodeport_mode="dsr")
def dsr_client_beside_its_backend(lab: Lab) -> None:
    """client and web are both on alpha; the client asks for beta's NodePort."""
    port = ServicePort(80, 8080, "UDP", node_port=30080)
    lab.apply(Service(name="echo", kind="NodePort", ports=(port,), backends=("web",)))
    client, beta = lab.pod("client"), lab.node("beta")
    with lab.pod("web").serve_udp(8080) as web:
        seen = lab.follow("client", "beta", port=30080, listen=False)
        answered = client.send_udp(beta, 30080)
        peers = {peer for peer, _ in web.report()["peers"]}
    lab.check("the client is answered, as by beta", answered.ok, detail=answered.error)
    lab.check("the backend sees the client", peers == {str(client.address)})
    lab.check("to beta and back, the answer on alpha alone", seen.walk == WALK,
              detail=str(seen.walk))  # fmt: skip
