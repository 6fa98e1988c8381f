"""A packet between pods of two nodes crosses the underlay inside VXLAN."""

from lab import Lab, scenario
from topologies.two_nodes import topology


@scenario(topology)
def pod_to_pod_vxlan(lab: Lab) -> None:
    """UDP, TCP and ICMP from client on alpha to server on beta."""
    client, server = lab.pod("client"), lab.pod("server")
    with server.serve_udp(5000), server.serve_tcp(80):
        lab.check("a datagram is answered", client.send_udp(server, 5000).ok)
        lab.check("a connection is made", client.connect(server, 80, payload=b"hello").ok)
    lab.check("an echo request is answered", client.ping(server).ok)
