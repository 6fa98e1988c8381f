"""Fragments carry no ports: they follow their first fragment, through a service and through NAT."""

from lab import Lab, Service, ServicePort, scenario
from topologies.two_nodes import topology

LARGE = bytes(range(256)) * 16


@scenario(topology)
def fragments(lab: Lab) -> None:
    """4 KiB in one datagram: to a pod, to a service, and out of the cluster."""
    client, server, world = lab.pod("client"), lab.pod("server"), lab.world
    port = ServicePort(53, 5353, "UDP")
    lab.apply(Service(name="dns", ports=(port,), backends=("server",)))
    with server.serve_udp(5353):
        direct = client.send_udp(server, 5353, LARGE)
        lab.check("a pod gets it whole, and so its answer", direct.reply[:4096] == LARGE)
        through = client.send_udp(lab.service("dns").address, 53, LARGE)
        lab.check("through a service too", through.reply[:4096] == LARGE, detail=through.error)
    with world.serve_udp(5353) as outside:
        out = client.send_udp(world, 5353, LARGE)
        peers = {address for address, _ in outside.report()["peers"]}
    lab.check("and out of the cluster and back", out.reply[:4096] == LARGE, detail=out.error)
    lab.check("with the node's address", peers == {str(lab.node("alpha").address)})
