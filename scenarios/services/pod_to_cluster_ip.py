"""A pod reaches a ClusterIP: translated where it is sent, and back where the answer arrives."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology

THERE = ("alpha from-container", "alpha to-overlay", "alpha to-netdev",
         "beta from-netdev", "beta from-overlay")  # fmt: skip
BACK = ("beta from-container", "beta to-overlay", "beta to-netdev",
        "alpha from-netdev", "alpha from-overlay")  # fmt: skip


@scenario(topology)
def pod_to_cluster_ip(lab: Lab) -> None:
    """Client on alpha, backend on beta, the service's address on no device at all."""
    port = ServicePort(80, 8080, "UDP")
    lab.apply(Service(name="echo", ports=(port,), backends=("server",)))
    address = lab.service("echo").address
    with lab.pod("server").serve_udp(8080) as server:
        seen = lab.follow("client", address, port=80, listen=False)
        peers = {peer for peer, _ in server.report()["peers"]}
        answered = lab.pod("client").send_udp(address, 80).ok
    request = seen.packets[0]
    lab.check("the pod sends to the service", request.packet.destination == address)
    lab.check("the backend gets it from the pod itself", peers == {str(lab.pod("client").address)})
    lab.check("the pod is answered", answered)
    lab.check("no address of the service is on alpha",
              address not in lab.node("alpha").run(["ip", "addr"]).stdout)  # fmt: skip
    walk = seen.walk
    lab.check("there and back, five programs each", walk == THERE + BACK, detail=str(walk))
