"""Destinations that the ip-masq agent lists see the pod's own address; the rest sees the node's."""

from lab import Lab, scenario
from topologies.two_nodes import topology


@scenario(topology, masquerade_exceptions=("203.0.113.0/24",))
def masquerade_exceptions(lab: Lab) -> None:
    """Two addresses outside: one is listed, one is not."""
    client, listed, other = lab.pod("client"), lab.facts.world_client, lab.facts.gateway
    seen = {}
    for address in (listed, other):
        with lab.world.serve_tcp(443) as server:
            reply = client.connect(address, 443, payload=b"hello").reply
            lab.check(f"{address} answers", reply == b"hello")
            seen[address] = [peer for peer, _ in server.report()["peers"]]
    lab.check("the listed one sees the pod", seen[listed] == [str(client.address)])
    lab.check("the other one the node", seen[other] == [str(lab.node("alpha").address)])
    with lab.node("alpha").map("cilium_ipmasq_v4") as exceptions:
        networks = [str(key.network) for key, _ in exceptions.items()]
    lab.check("one entry of cilium_ipmasq_v4 decides", networks == ["203.0.113.0/24"])
