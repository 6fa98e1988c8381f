"""IPsec's ESP hides a packet from everybody on the way, and not from the trace.

client ══ESP══► server: transport mode between the pods; alpha ══ESP══► beta: tunnel mode
"""

from lab import Lab, scenario
from lab.observe.headers import ESP, network_bytes_of, parse
from lab.scenarios.ipsec import nodes, pods, protected
from lab.trace import Hop, Step
from topologies.two_nodes import topology

WORD = b"a word for the server alone"


def outside(hop: Hop) -> tuple[object, ...]:
    """Outer addresses, SPI and sequence number of an ESP packet; nothing for any other."""
    data = hop.before or b""
    packet = parse(network_bytes_of(data) if hop.link_layer == "ethernet" else data)
    if packet is None or packet.protocol != ESP:
        return ()
    return str(packet.source), str(packet.destination), *packet.serial


@scenario(topology, datapath=False, endpoint_routes=True, routing="native")
def ipsec(lab: Lab) -> None:
    """The same datagram under either mode: the plain kernel routes it, as programs know no ESP."""
    lab.needs("esp")
    lab.needs("fentry")
    lab.pod("client").ping(lab.pod("server"))
    for mode, ends in (("transport", pods(lab)), ("tunnel", nodes(lab))):
        with protected(lab, ends, mode):
            trace = lab.follow("client", "server", payload=WORD).packets[0]
        here, there = ends
        lab.check(f"{mode} mode: one trace from the client to the server's socket", trace.delivered)
        cable = [hop for hop in trace.at(namespace="underlay") if hop.before]
        lab.check(
            f"on the cable it is ESP from {here.place} to {there.place}",
            {outside(hop) for hop in cable} == {(here.address, there.address, here.spi, 1)},
            detail=str({outside(hop) for hop in cable}),
        )
        lab.check("nobody there can read it", all(WORD not in (h.before or b"") for h in cable))
        turns = [(hop.namespace, hop.verdict) for hop in trace.taken if hop.verdict.endswith("ed")]
        turns = [turn for turn in turns if turn[1] in ("encrypted", "decrypted")]
        lab.check(
            f"{here.place} encrypts it, {there.place} decrypts it",
            turns == [(here.place, "encrypted"), (there.place, "decrypted")],
            detail=str(turns),
        )
        delivered = [
            hop for hop in trace.at(namespace=there.place) if hop.step is Step.IP_LOCAL_DELIVER
        ]
        times = sum(hop.taken for hop in delivered)
        # in transport mode the pod delivers what it decrypted too; a node forwards it to the pod
        once = mode == "tunnel"
        lab.check(f"ip_local_deliver of {there.place}: {'once' if once else 'twice'}",
                  times == (1 if once else 2), detail=str(times))  # fmt: skip
        last = [hop for hop in trace.at(namespace="server") if hop.before][-1]
        lab.check("the server's socket has it in clear", WORD in (last.before or b""))
