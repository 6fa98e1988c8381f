"""With routed pods and the node's stack, a ClusterIP's packet meets four programs, not five."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology

DRAWN = "from-container -> from-host -> to-netdev -> from-netdev -> to-host"
MEASURED = "alpha from-container, alpha to-netdev, beta from-netdev, beta from-host"


@scenario(topology, routing="native")
def cluster_ip_legacy_walk(lab: Lab) -> None:
    """The walk as it is often drawn, beside the one that happens."""
    port = ServicePort(80, 8080, "UDP")
    lab.apply(Service(name="echo", ports=(port,), backends=("server",)))
    with lab.pod("server").serve_udp(8080, reply=b"no cookie, not followed"):
        seen = lab.follow("client", lab.service("echo").address, port=80, listen=False)
    walk = ", ".join(seen.walk)
    lab.check(f"measured: {MEASURED}", walk == MEASURED, detail=f"measured: {walk}")
    lab.check(f"drawn: {DRAWN}; neither from-host on the sender's node nor to-host happens",
              "alpha from-host" not in walk and "to-host" not in walk)  # fmt: skip
    lab.check("to the receiver's pod it comes from the node's stack, by from-host",
              walk.endswith("beta from-host"))  # fmt: skip
