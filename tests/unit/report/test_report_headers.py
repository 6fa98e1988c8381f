"""Headers read from bytes, checked against scapy's own reading; and what a hop changed."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from lab.report.headers import changes, layers, tunnel

INNER = Ether(src="02:00:0a:00:01:0a", dst="06:00:0a:00:01:0a")
FRAMES = {
    "udp": INNER / IP(src="10.0.1.10", dst="10.0.2.10", ttl=63) / UDP(sport=4, dport=5) / b"hi",
    "tcp with options": INNER / IP() / TCP(flags="SA", options=[("MSS", 1460)]),
    "icmp": INNER / IP() / ICMP(type=8, id=7, seq=2) / b"x",
    "arp": INNER / ARP(op=2),
}
NAMES = {
    "udp": ["ethernet", "ipv4", "udp", "payload"],
    "tcp with options": ["ethernet", "ipv4", "tcp"],
    "icmp": ["ethernet", "ipv4", "icmp", "payload"],
    "arp": ["ethernet", "arp"],
}


@pytest.mark.parametrize("kind", FRAMES)
def test_headers_are_found_in_order(kind):
    assert [layer.name for layer in layers(bytes(FRAMES[kind]))] == NAMES[kind]


def test_fields_are_those_that_scapy_reads():
    packet = Ether(bytes(FRAMES["udp"]))
    _, ip, udp, payload = layers(bytes(packet))
    assert ip.get("ttl") == str(packet[IP].ttl)
    assert ip.get("checksum") == f"0x{packet[IP].chksum:04x}"
    assert udp.get("destination port") == str(packet[UDP].dport)
    assert payload.get("text") == packet[Raw].load.decode()


def test_a_vxlan_packet_shows_its_outer_headers():
    outer = IP(src="172.30.0.1", dst="172.30.0.2") / UDP(sport=49321, dport=8472) / VXLAN(vni=256)
    found = tunnel(bytes(Ether() / outer / FRAMES["udp"]))
    assert (found.source, found.destination, found.vni) == ("172.30.0.1", "172.30.0.2", 256)
    assert (found.overhead, found.inner) == (50, len(bytes(FRAMES["udp"])))


def test_a_packet_without_link_layer_is_read_too():
    assert [layer.name for layer in layers(bytes(IP() / UDP()), "ip")] == ["ipv4", "udp"]


@pytest.mark.parametrize("size", [0, 5, 20, 36, 41])
def test_a_cut_packet_is_read_as_far_as_it_goes(size):
    cut = bytes(FRAMES["udp"])[:size]
    found = layers(cut)
    assert sum(layer.end - layer.start for layer in found) == size


def test_a_later_fragment_has_no_transport_header():
    found = layers(bytes(INNER / IP(frag=100, proto=17) / b"xxxxxxxxx"))
    assert [layer.name for layer in found] == ["ethernet", "ipv4", "payload"]


def test_a_translated_address_is_a_changed_field():
    before = layers(bytes(IP(src="10.0.1.10", dst="10.96.0.1") / UDP()), "ip")
    after = layers(bytes(IP(src="10.0.1.10", dst="10.0.2.10") / UDP()), "ip")
    ip, udp = changes(before, after)
    assert (ip.kind, {"destination"} <= ip.fields, "source" in ip.fields) == (
        "changed",
        True,
        False,
    )
    assert "source port" not in udp.fields


def test_encapsulation_adds_headers_in_front_and_decapsulation_removes_them():
    inner = bytes(FRAMES["udp"])
    outer = bytes(Ether() / IP() / UDP(dport=8472) / VXLAN(vni=1)) + inner
    kinds = [change.kind for change in changes(layers(inner), layers(outer))]
    assert kinds == ["added"] * 4 + ["same"] * 4
    kinds = [change.kind for change in changes(layers(outer), layers(inner))]
    assert kinds == ["removed"] * 4 + ["same"] * 4
