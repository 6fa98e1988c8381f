"""Two pods of one node reach each other, and the packet never leaves the node."""

from lab import Lab, scenario
from lab.trace import Step
from topologies.single_node import topology


@scenario(topology)
def pod_to_pod_same_node(lab: Lab) -> None:
    """UDP, TCP and ICMP from client to server on alpha, and the way of one datagram."""
    client, server = lab.pod("client"), lab.pod("server")
    with server.serve_tcp(80):
        lab.check("a connection is made", client.connect(server, 80, payload=b"hello").ok)
    lab.check("an echo request is answered", client.ping(server).ok)

    trace = lab.follow("client", "server", protocol="udp").packets[0]
    lab.check("a datagram reaches the server's socket", trace.delivered)
    lab.check("from-container saw it", any(h.program == "cil_from_container" for h in trace.taken))
    lab.check("it met no other node", trace.nodes == ("alpha",))
    lab.check(
        "it never touched the uplink", not trace.at("alpha", namespace="alpha", device="eth0")
    )
    lab.check("the pod took it step by step", Step.DATA_READY in trace.steps("server"))
    lab.check("no event was lost", trace.lost == 0)
