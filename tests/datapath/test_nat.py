"""Masquerade: who leaves with the node's address, and how answers find back."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP

from lab.datapath.testrun import Verdict
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.layouts.attach import Hook
from lab.layouts.core import CidrKey, Flag
from tests.datapath.scene import (
    CLIENT,
    NEIGHBOUR,
    NODE,
    OTHER_NODE,
    WORLD,
    Scene,
    echo,
    frame,
    has_right_checksums,
    tcp,
    udp,
    unreachable,
)

PASS, DROP = Verdict.PASS, Verdict.DROP
CIDR = {
    "native_routing_cidr": IPv4Address("10.0.0.0"),
    "native_routing_cidr_mask": IPv4Address("255.0.0.0"),
}


@pytest.fixture
def node(scenes):
    return scenes(enable_masquerade=True, **CIDR)


def leave(scene, packet, **context):
    return scene.run(Hook.TO_NETDEV, packet, **context)


def arrive(scene, packet):
    return scene.run(Hook.FROM_NETDEV, packet)


def source(result):
    return Ether(result.packet)[IP].src


SOURCES = {
    "a pod to the world: the node": (tcp(CLIENT, WORLD), {}, NODE),
    "a pod's ping to the world: the node": (echo(CLIENT, WORLD), {}, NODE),
    "a pod to another node, which knows no way back: the node": (udp(CLIENT, OTHER_NODE), {}, NODE),
    "a pod to the routed network: the pod": (tcp(CLIENT, "10.9.9.9"), {}, CLIENT),
    "the node itself": (tcp(NODE, WORLD), {}, NODE),
    "what is not ours": (tcp("192.0.2.1", WORLD), {}, "192.0.2.1"),
    "the tunnel's outer packet": (udp(NODE, OTHER_NODE, dport=8472), {"mark": 0x400}, NODE),
    "what NodePort has translated": (tcp(CLIENT, WORLD), {"mark": 0x300}, CLIENT),
    "a protocol without ports": (frame(CLIENT, WORLD, b"", proto=47), {}, CLIENT),
}


@pytest.mark.parametrize(("packet", "context", "address"), SOURCES.values(), ids=SOURCES.keys())
def test_source(node, packet, context, address):
    result = leave(node, packet, **context)
    assert (result.verdict, source(result)) == (PASS, address)
    assert has_right_checksums(result.packet)


def test_where_pods_are_routed_other_nodes_see_the_pod(scenes):
    scene = scenes(enable_masquerade=True, enable_tunnel=False)
    assert source(leave(scene, udp(CLIENT, OTHER_NODE))) == CLIENT
    assert source(leave(scene, udp(CLIENT, WORLD))) == NODE


def test_switched_off_nobody_is_masqueraded(scene):
    assert source(leave(scene, tcp(CLIENT, WORLD))) == CLIENT


def test_an_exception_sees_the_pod(node):
    exceptions = node.map("cilium_ipmasq_v4")
    key = CidrKey.of(IPv4Network("203.0.113.0/24"))
    exceptions.update(key, Flag())
    assert source(leave(node, tcp(CLIENT, WORLD))) == CLIENT
    exceptions.delete(key)
    assert source(leave(node, tcp(CLIENT, WORLD))) == NODE


def test_the_answer_to_a_client_from_outside_keeps_the_pods_address(node):
    node.deliver(tcp(WORLD, CLIENT, 2000, 80), sender=2)
    assert source(leave(node, tcp(CLIENT, WORLD, 80, 2000, "SA"))) == CLIENT


ANSWERS = {
    "TCP": (tcp(CLIENT, WORLD), lambda port: tcp(WORLD, NODE, 80, port, "SA")),
    "UDP": (udp(CLIENT, WORLD), lambda port: udp(WORLD, NODE, 53, port)),
}


@pytest.mark.parametrize(("packet", "answer"), ANSWERS.values(), ids=ANSWERS.keys())
def test_the_answer_finds_the_pod(node, packet, answer):
    port = Ether(leave(node, packet).packet)[IP].payload.sport
    result = arrive(node, answer(port))
    back = Ether(result.packet)[IP]
    assert (result.verdict, back.dst, back.payload.dport) == (PASS, CLIENT, 40000)
    assert has_right_checksums(result.packet)


def test_the_pong_finds_the_pod_that_pinged(node):
    ping = Ether(leave(node, echo(CLIENT, WORLD, 7)).packet)
    result = arrive(node, echo(WORLD, NODE, ping[ICMP].id, answer=True))
    pong = Ether(result.packet)
    assert (pong[IP].dst, pong[ICMP].id) == (CLIENT, 7)
    assert has_right_checksums(result.packet)


def test_a_pong_nobody_asked_for_leaves_as_it_is(node):
    packet = echo(CLIENT, WORLD, 7, answer=True)
    result = leave(node, packet)
    assert (result.verdict, result.packet) == (PASS, packet)


def test_a_port_in_the_range_is_kept_and_a_lower_one_moved_into_it(node):
    kept = Ether(leave(node, tcp(CLIENT, WORLD, 40001)).packet)[IP]
    moved = Ether(leave(node, tcp(CLIENT, WORLD, 1000)).packet)[IP]
    assert (kept.sport, moved.sport >= 32768) == (40001, True)


def test_two_pods_with_one_port_get_two(node):
    ports = [
        Ether(leave(node, tcp(pod, WORLD, 40001)).packet)[IP].sport for pod in (CLIENT, NEIGHBOUR)
    ]
    assert ports == [40001, 40002]


def test_a_port_the_node_itself_uses_is_not_given_to_a_pod(node):
    assert Ether(leave(node, tcp(NODE, WORLD, 40001)).packet)[IP].sport == 40001
    assert Ether(leave(node, tcp(CLIENT, WORLD, 40001)).packet)[IP].sport == 40002


def test_a_flow_of_the_node_itself_is_remembered_until_both_have_closed(node):
    leave(node, tcp(CLIENT, WORLD, 40001))
    out = Ether(leave(node, tcp(NODE, WORLD, 40001)).packet)[IP].sport
    for flags in ("SA", "FA"):
        back = arrive(node, tcp(WORLD, NODE, 80, out, flags))
        assert Ether(back.packet)[IP].dport == 40001
    ((_, open_yet),) = node.map("cilium_ct4_global").items()
    leave(node, tcp(NODE, WORLD, 40001, flags="FA"))
    ((_, closed),) = node.map("cilium_ct4_global").items()
    assert (open_yet.src_sec_id, open_yet.rx_packets, closed.tx_packets) == (1, 2, 2)
    assert open_yet.lifetime - closed.lifetime > 21000


def test_a_flow_keeps_its_port(node):
    first = leave(node, tcp(CLIENT, WORLD, 1000)).packet
    again = leave(node, tcp(CLIENT, WORLD, 1000, flags="A")).packet
    assert Ether(first)[IP].sport == Ether(again)[IP].sport
    assert len(node.map("cilium_snat_v4_external").items()) == 2


def test_a_flow_whose_way_out_was_evicted_keeps_its_port(node):
    leave(node, tcp(NEIGHBOUR, WORLD, 40001))
    first = Ether(leave(node, tcp(CLIENT, WORLD, 40001)).packet)[IP].sport
    entries = node.map("cilium_snat_v4_external")
    (out,) = (k for k, _ in entries.items() if str(k.saddr) == CLIENT)
    entries.delete(out)
    again = leave(node, tcp(CLIENT, WORLD, 40001, flags="A")).packet
    assert (first, Ether(again)[IP].sport, len(entries.items())) == (40002, 40002, 4)


def test_an_entry_removed_is_a_way_back_closed(node):
    packet = leave(node, udp(CLIENT, WORLD)).packet
    node.map("cilium_snat_v4_external").map.clear()
    result = arrive(node, udp(WORLD, NODE, 53, Ether(packet)[IP].sport))
    assert (result.verdict, Ether(result.packet)[IP].dst) == (PASS, NODE)


REFUSED = {
    "SCTP: its CRC would have to be new": (
        frame(CLIENT, WORLD, SCTP(sport=40000, dport=80)),
        "DROP_NAT_UNSUPP_PROTO",
    ),
    "an ICMP message without identifier": (
        frame(CLIENT, WORLD, ICMP(type=13)),
        "DROP_UNKNOWN_ICMP4_TYPE",
    ),
}


@pytest.mark.parametrize(("packet", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_translated(node, packet, reason):
    result = leave(node, packet)
    assert (result.verdict, result.drop_reason) == (DROP, reason)


def test_no_port_left_is_a_counted_drop():
    full = BpfMap.create("nat_full", MapSpec(MapType.HASH, 14, 40, 1, 0))
    full.update(bytes(14), bytes(40))
    substitutes = {"cilium_snat_v4_external": full}
    with Scene(substitutes=substitutes, enable_masquerade=True) as scene:
        result = leave(scene, tcp(CLIENT, WORLD))
    assert (result.verdict, result.drop_reason) == (DROP, "DROP_NAT_NO_MAPPING")


def test_an_error_about_a_masqueraded_flow_finds_the_pod(node):
    sent = leave(node, udp(CLIENT, WORLD, 1000)).packet
    result = arrive(node, unreachable("192.0.2.1", NODE, sent, kind=11, code=0))
    error = Ether(result.packet)
    quoted = IP(bytes(error[ICMP].payload))
    assert (error[IP].src, error[IP].dst) == ("192.0.2.1", CLIENT)
    assert (quoted.src, quoted.payload.sport) == (CLIENT, 1000)
    assert has_right_checksums(result.packet)


def test_an_error_about_a_masqueraded_ping_finds_the_pod(node):
    sent = leave(node, echo(CLIENT, WORLD, 7)).packet
    error = Ether(arrive(node, unreachable(WORLD, NODE, sent)).packet)
    assert (error[IP].dst, IP(bytes(error[ICMP].payload))[ICMP].id) == (CLIENT, 7)


def test_a_pods_error_about_a_masqueraded_answer_leaves_from_the_node(node):
    sent = Ether(leave(node, udp(CLIENT, WORLD, 1000)).packet)[IP]
    answer = arrive(node, udp(WORLD, NODE, 53, sent.sport)).packet
    error = Ether(leave(node, unreachable(CLIENT, WORLD, answer)).packet)
    quoted = IP(bytes(error[ICMP].payload))
    assert (error[IP].src, quoted.dst, quoted.payload.dport) == (NODE, NODE, sent.sport)


def test_a_forged_error_is_the_stacks(node):
    result = arrive(node, unreachable(WORLD, NODE, udp(NODE, WORLD, 5, 6)))
    assert (result.verdict, Ether(result.packet)[IP].dst) == (PASS, NODE)


def test_later_fragments_leave_and_come_back_with_the_first(node):
    first = udp(CLIENT, WORLD, 40000, 53, bytes(1400), flags="MF", id=9)
    later = frame(CLIENT, WORLD, bytes(100), proto=17, frag=176, id=9)
    assert {source(leave(node, packet)) for packet in (first, later)} == {NODE}
    back = udp(WORLD, NODE, 53, 40000, bytes(1400), flags="MF", id=3)
    back_later = frame(WORLD, NODE, bytes(100), proto=17, frag=176, id=3)
    got = {Ether(arrive(node, packet).packet)[IP].dst for packet in (back, back_later)}
    assert got == {CLIENT}
