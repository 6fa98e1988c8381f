"""Two pods of one node reach each other, and the packet never leaves the node."""

from lab import Lab, scenario
from topologies.single_node import topology


@scenario(topology)
def pod_to_pod_same_node(lab: Lab) -> None:
    """UDP, TCP and ICMP from client to server on alpha."""
    client, server = lab.pod("client"), lab.pod("server")
    with server.serve_udp(5000), server.serve_tcp(80):
        lab.check("a datagram is answered", client.send_udp(server, 5000).ok)
        lab.check("a connection is made", client.connect(server, 80, payload=b"hello").ok)
    lab.check("an echo request is answered", client.ping(server).ok)
