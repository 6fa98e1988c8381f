"""Map entries become the lines that cilium prints."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from lab.datapath import listing
from lab.datapath.events import Vocabulary
from lab.layouts import core, flows

A, B, VIP = IPv4Address("10.0.1.10"), IPv4Address("10.0.2.10"), IPv4Address("10.96.0.1")
NAMES = Vocabulary(
    drops={133: "DROP_POLICY"},
    drop_texts={133: "Policy denied"},
    metrics={},
    points={},
    trace_reasons={},
    files={},
    types={},
)

# pod A:1000 speaks to B:80 (or to a service there); how the map keeps it, how it is printed
TUPLES = {
    "egress: addresses swapped, ports true": (
        flows.Tuple4(saddr=B, daddr=A, sport=1000, dport=80, nexthdr=6, flags=0),
        "TCP OUT 10.0.1.10:1000 -> 10.0.2.10:80 ",
    ),
    "ingress is kept the same way": (
        flows.Tuple4(saddr=B, daddr=A, sport=1000, dport=80, nexthdr=6, flags=1),
        "TCP IN 10.0.1.10:1000 -> 10.0.2.10:80 ",
    ),
    "a service: addresses true, ports swapped": (
        flows.Tuple4(saddr=A, daddr=VIP, sport=80, dport=1000, nexthdr=17, flags=4),
        "UDP SVC 10.0.1.10:1000 -> 10.96.0.1:80 ",
    ),
    "an error about a flow": (
        flows.Tuple4(saddr=B, daddr=A, sport=0, dport=0, nexthdr=1, flags=2),
        "ICMP OUT RELATED 10.0.1.10:0 -> 10.0.2.10:0 ",
    ),
    "an unknown protocol by its number": (
        flows.Tuple4(saddr=B, daddr=A, nexthdr=99, flags=0),
        "99 OUT 10.0.1.10:0 -> 10.0.2.10:0 ",
    ),
}


@pytest.mark.parametrize(("key", "begin"), TUPLES.values(), ids=TUPLES.keys())
def test_conntrack_is_printed_the_way_the_packets_went(key, begin):
    ((line,),) = listing.conntrack([(key, flows.CtEntry())], now_s=0).rows
    assert line.startswith(begin)


def test_conntrack_names_its_flags_and_counts_down():
    key = flows.Tuple4(saddr=B, daddr=A, sport=1000, dport=80, nexthdr=6)
    entry = flows.CtEntry(
        lifetime=117, flags=0x0018, tx_packets=3, tx_bytes=180, tx_flags_seen=2, src_sec_id=319
    )
    ((line,),) = listing.conntrack([(key, entry)], now_s=100).rows
    assert "expires=117 (remaining: 17 sec(s))" in line
    assert "Flags=0x0018 [ LBLoopback SeenNonSyn ]" in line
    assert "TxPackets=3 TxBytes=180 TxFlagsSeen=0x02" in line
    assert "SourceSecurityID=319" in line


def test_a_services_entry_names_its_backend():
    key = flows.Tuple4(saddr=A, daddr=VIP, sport=80, dport=1000, nexthdr=6, flags=4)
    ((line,),) = listing.conntrack([(key, flows.CtEntry(rx_bytes=7))], now_s=0).rows
    assert "BackendID=7" in line


TRANSLATIONS = {
    "a source that leaves": (
        flows.Tuple4(saddr=A, daddr=B, sport=32768, dport=80, nexthdr=6, flags=0),
        "TCP OUT 10.0.1.10:32768 -> 10.0.2.10:80 XLATE_SRC 172.30.0.1:44123",
    ),
    "an answer that comes back": (
        flows.Tuple4(saddr=B, daddr=A, sport=80, dport=32768, nexthdr=6, flags=1),
        "TCP IN 10.0.2.10:80 -> 10.0.1.10:32768 XLATE_DST 172.30.0.1:44123",
    ),
}


@pytest.mark.parametrize(("key", "begin"), TRANSLATIONS.values(), ids=TRANSLATIONS.keys())
def test_translations_are_in_packet_order(key, begin):
    entry = flows.NatEntry(created=77, to_addr=IPv4Address("172.30.0.1"), to_port=44123, needs_ct=1)
    ((line,),) = listing.nat([(key, entry)], now_s=200).rows
    assert line == f"{begin} Created=123sec ago NeedsCT=1"


def test_ipcache_prints_prefix_identity_and_tunnel():
    key = core.IpcacheKey.of(IPv4Network("10.0.2.0/24"))
    value = core.RemoteEndpointInfo(sec_identity=6, tunnel_endpoint=IPv4Address("172.30.0.2"))
    assert listing.ipcache([(key, value)]).rows == (
        (
            "10.0.2.0/24",
            "identity=6 encryptkey=0 tunnelendpoint=172.30.0.2 flags=<none>",
        ),
    )


def test_the_nodes_own_addresses_are_localhost():
    entry = (core.EndpointKey(ip4=A), core.EndpointInfo(flags=core.ENDPOINT_F_HOST))
    assert listing.endpoints([entry]).rows == (("10.0.1.10:0", "(localhost)"),)


PORTS = {
    "everything": (core.PolicyKey(), "ANY", 0),
    "one protocol": (core.PolicyKey(protocol=17), "ANY/UDP", 8),
    "one port": (core.PolicyKey(protocol=6, dport=80), "80/TCP", 24),
    "port 0": (core.PolicyKey(protocol=6, egress_wild=0x20), "0/TCP", 24),
    "ports": (core.PolicyKey(protocol=6, dport=1024, egress_wild=10 << 1), "1024-2047/TCP", 14),
    "the lower half": (core.PolicyKey(protocol=6, egress_wild=15 << 1 | 1), "0-32767/TCP", 9),
}


@pytest.mark.parametrize(("key", "text", "bits"), PORTS.values(), ids=PORTS.keys())
def test_a_policy_key_stands_for_ports(key, text, bits):
    assert (listing.port_range(key), key.compared_bits) == (text, bits)


def test_policy_rows_say_what_whom_and_where():
    key = core.PolicyKey(sec_label=256, protocol=6, dport=80)
    ((*row,),) = listing.policy([(key, core.PolicyEntry(flags=1))], lambda n: f"id{n}").rows
    assert row[:4] == ["Deny", "Ingress", "id256", "80/TCP"]


def test_services_print_a_master_row_and_their_backends():
    service = flows.Service(count=1, rev_nat_index=5, flags=0x10)
    slot = flows.Service(backend_id=3, rev_nat_index=5)
    entries = [
        (flows.ServiceKey(address=VIP, dport=80, proto=6, backend_slot=1), slot),
        (flows.ServiceKey(address=VIP, dport=80, proto=6), service),
    ]
    rows = listing.services(entries, {3: flows.Backend(address=B, port=8080, proto=6)}).rows
    assert rows == (
        ("10.96.0.1:80/TCP (0)", "0.0.0.0:0 (5) (0) [ClusterIP, sessionAffinity, non-routable]"),
        ("10.96.0.1:80/TCP (1)", "10.0.2.10:8080/TCP (5) (1)"),
    )


def test_a_missing_backend_is_said():
    entries = [(flows.ServiceKey(address=VIP, backend_slot=1), flows.Service(backend_id=3))]
    assert "backend gone" in listing.services(entries, {}).rows[0][1]


REASONS = {
    "a forwarded packet": (0, "Success"),
    "a drop, in C's words": (133, "Policy denied"),
    "a packet that only came in": (3, "Interface"),
}


@pytest.mark.parametrize(("reason", "text"), REASONS.values(), ids=REASONS.keys())
def test_metrics_name_their_reason(reason, text):
    entry = (core.MetricsKey(reason=reason, dir=2), core.MetricsValue(count=3, bytes=180))
    assert listing.metrics([entry], NAMES).rows == ((text, "EGRESS", "3", "180"),)


def test_the_longest_prefix_matches():
    entries = [
        (core.IpcacheKey.of(IPv4Network(net)), core.RemoteEndpointInfo(sec_identity=n))
        for n, net in enumerate(("0.0.0.0/0", "10.0.0.0/8", "10.0.2.10/32", "10.0.1.0/24"))
    ]
    assert listing.matching(entries, B)[1].sec_identity == 2
    assert listing.matching(entries, IPv4Address("8.8.8.8"))[1].sec_identity == 0


def test_columns_are_aligned_and_lines_not_padded():
    table = listing.Listing(("A", "LONG HEADER"), (("longer", "x"), ("y", "z")), ())
    assert listing.lines(table) == ["A        LONG HEADER", "longer   x", "y        z"]
    assert listing.lines(listing.Listing((), (), ())) == []
