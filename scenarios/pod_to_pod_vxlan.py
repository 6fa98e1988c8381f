"""A packet between pods of two nodes crosses the underlay inside VXLAN."""

from lab import Lab, scenario
from topologies.two_nodes import topology


@scenario(topology)
def pod_to_pod_vxlan(lab: Lab) -> None:
    """UDP, TCP and ICMP from client on alpha to server on beta, and the way of one datagram."""
    client, server = lab.pod("client"), lab.pod("server")
    with server.serve_tcp(80):
        lab.check("a connection is made", client.connect(server, 80, payload=b"hello").ok)
    lab.check("an echo request is answered", client.ping(server).ok)

    trace = lab.follow("client", "server", protocol="udp").packets[0]
    lab.check("a datagram reaches the server's socket", trace.delivered)
    programs = [hop.program for hop in trace.taken if hop.program.startswith("cil_")]
    walk = "from_container to_overlay to_netdev from_netdev from_overlay"
    lab.check(
        f"it meets {walk}, in this order",
        programs == [f"cil_{word}" for word in walk.split()],
        detail=str(programs),
    )
    wire = [hop for hop in trace.at(namespace="underlay") if hop.taken]
    lab.check("the underlay sees it", wire)
    outside = {hop.identity for hop in wire}
    lab.check(
        "its VNI is the client's identity", outside == {client.facts.identity}, detail=str(outside)
    )
    lab.check("no event was lost", trace.lost == 0)
