"""What bpf_lxc.c does with a packet its pod sends."""

import pytest
from scapy.layers.inet import GRE, IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from lab.datapath.events import TraceEvent
from lab.datapath.testrun import Verdict
from lab.layouts.attach import Hook
from lab.packets.frames import arp_answer, arp_request
from tests.datapath.scene import (
    CLIENT,
    CLIENT_LXC,
    CLIENT_MAC,
    NEIGHBOUR,
    NEIGHBOUR_LXC,
    NEIGHBOUR_MAC,
    NODE,
    REMOTE,
    ROUTED_ELSEWHERE,
    ROUTER,
    UNREADY,
    WORLD,
    echo,
    frame,
    tcp,
    udp,
)

PASS, DROP, REDIRECT = Verdict.PASS, Verdict.DROP, Verdict.REDIRECT


def arp(**fields):
    return bytes(Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=CLIENT_MAC, **fields))


def other_ethertype(layer):
    return bytes(Ether(src=CLIENT_MAC, dst=CLIENT_LXC) / layer)


def header(**fields):
    """A UDP packet to the neighbour with wrong fields in its IPv4 header."""
    return udp(CLIENT, NEIGHBOUR, **fields)


CASES = {
    "ARP for the router: answered": (arp(psrc=CLIENT, pdst=ROUTER), REDIRECT, None),
    "ARP for anybody: answered": (arp(psrc=CLIENT, pdst="192.0.2.1"), REDIRECT, None),
    "ARP for its own address, a probe: silence": (arp(psrc=CLIENT, pdst=CLIENT), PASS, None),
    "ARP answer about itself: to the stack": (arp(op=2, psrc=CLIENT, pdst=ROUTER), PASS, None),
    "ARP answer about another: spoofed": (
        arp(op=2, psrc=NEIGHBOUR, pdst=ROUTER),
        DROP,
        "DROP_INVALID_SIP",
    ),
    "ARP cut short: invalid": (arp(psrc=CLIENT, pdst=ROUTER)[:40], DROP, "DROP_INVALID"),
    "ARP for another hardware: invalid": (arp(hwtype=6, pdst=ROUTER), DROP, "DROP_INVALID"),
    "UDP to a pod here: to its veth": (udp(CLIENT, NEIGHBOUR), REDIRECT, None),
    "TCP to a pod here: to its veth": (tcp(CLIENT, NEIGHBOUR), REDIRECT, None),
    "ping to a pod here: to its veth": (echo(CLIENT, NEIGHBOUR), REDIRECT, None),
    "UDP to a pod elsewhere: into the tunnel": (udp(CLIENT, REMOTE), REDIRECT, None),
    "to a pod only cilium_tunnel_map knows: into the tunnel": (
        udp(CLIENT, ROUTED_ELSEWHERE),
        REDIRECT,
        None,
    ),
    "to the node: to its stack": (udp(CLIENT, NODE), PASS, None),
    "to the router address: to its stack": (echo(CLIENT, ROUTER), PASS, None),
    "to the world: to the stack": (tcp(CLIENT, WORLD), PASS, None),
    "another pod's source: spoofed": (udp(NEIGHBOUR, REMOTE), DROP, "DROP_INVALID_SIP"),
    "a tag: this node has no VLANs": (
        other_ethertype(Dot1Q(vlan=7) / IP(src=CLIENT, dst=REMOTE)),
        DROP,
        "DROP_VLAN_FILTERED",
    ),
    "IPv6: not spoken here": (other_ethertype(IPv6()), DROP, "DROP_UNKNOWN_L3"),
    "an unknown ethertype": (
        bytes(Ether(src=CLIENT_MAC, dst=CLIENT_LXC, type=0x88B5)) + bytes(46),
        DROP,
        "DROP_UNKNOWN_L3",
    ),
    "version 5 in an IPv4 frame": (header(version=5), DROP, "DROP_INVALID"),
    "a header of 16 bytes": (header(ihl=4), DROP, "DROP_INVALID"),
    "a length beyond the frame": (header(len=200), DROP, "DROP_INVALID"),
    "a length within the header": (header(len=19), DROP, "DROP_INVALID"),
    "a header with options": (header(options=b"\x01\x01\x01\x00"), REDIRECT, None),
    "TTL 1 to a pod here: it would have to be 0": (header(ttl=1), DROP, "DROP_TTL_EXCEEDED"),
    "TTL 0 to a pod here": (header(ttl=0), DROP, "DROP_TTL_EXCEEDED"),
    "TTL 2 to a pod here: one left": (header(ttl=2), REDIRECT, None),
    "GRE: no protocol to track": (
        frame(CLIENT, REMOTE, GRE()),
        DROP,
        "DROP_CT_UNKNOWN_PROTO",
    ),
    "a tunnel packet of its own could claim any identity": (
        udp(CLIENT, WORLD, dport=8472),
        DROP,
        "DROP_ENCAP_PROHIBITED",
    ),
    "to a pod whose programs are not loaded": (udp(CLIENT, UNREADY), DROP, "DROP_EP_NOT_READY"),
}


@pytest.mark.parametrize(("packet", "verdict", "reason"), CASES.values(), ids=CASES.keys())
def test_from_container(scene, packet, verdict, reason):
    result = scene.run(Hook.FROM_CONTAINER, packet)
    assert (result.verdict, result.drop_reason) == (verdict, reason)


@pytest.mark.parametrize("asked", [ROUTER, NEIGHBOUR, WORLD])
def test_arp_answer_is_the_mac_of_the_veths_host_end(scene, asked):
    result = scene.run(Hook.FROM_CONTAINER, arp_request(CLIENT_MAC, CLIENT, asked))
    assert arp_answer(result.packet) == (CLIENT_LXC, asked)


POINTS = {
    "a pod here: told at both ends": (NEIGHBOUR, ["FROM_LXC", "TO_LXC"], 11),
    "a pod elsewhere: told as sent into the tunnel": (REMOTE, ["FROM_LXC", "TO_OVERLAY"], 5),
    "the world: told as given to the stack": (WORLD, ["FROM_LXC", "TO_STACK"], 0),
}


@pytest.mark.parametrize(("to", "points", "ifindex"), POINTS.values(), ids=POINTS.keys())
def test_observation_points(scene, to, points, ifindex):
    result = scene.run(Hook.FROM_CONTAINER, udp(CLIENT, to))
    told = [event for event in result.events if isinstance(event, TraceEvent)]
    assert [event.name for event in told] == points
    assert (told[-1].ifindex, told[-1].src_identity) == (ifindex, 256)


def test_the_neighbour_gets_it_as_from_a_router(scene):
    result = scene.run(Hook.FROM_CONTAINER, udp(CLIENT, NEIGHBOUR))
    got = Ether(result.packet)
    assert (got.dst, got.src, got[IP].ttl) == (NEIGHBOUR_MAC, NEIGHBOUR_LXC, 63)


def test_the_identity_goes_with_the_packet_into_the_stack(scene):
    assert scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, WORLD)).mark == 256 << 16 | 0x0F00


def test_a_mark_the_packet_came_with_says_nothing(scene):
    result = scene.run(Hook.FROM_CONTAINER, udp(CLIENT, NEIGHBOUR), mark=0x0C00)
    assert result.event(TraceEvent).src_identity == 256


def test_with_routes_per_endpoint_even_a_neighbour_is_the_stacks(scenes):
    scene = scenes(enable_endpoint_routes=True)
    result = scene.run(Hook.FROM_CONTAINER, udp(CLIENT, NEIGHBOUR))
    assert (result.verdict, result.mark) == (PASS, 256 << 16 | 0x0F00)


def test_without_a_tunnel_a_remote_pod_is_the_stacks(scenes):
    result = scenes(enable_tunnel=False).run(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE))
    assert result.verdict is PASS


def test_aggregation_leaves_out_what_is_not_new(scene):
    scene.aggregate(3)
    try:
        first = scene.run(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE))
        second = scene.run(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE))
    finally:
        scene.aggregate(0)
    assert [event.name for event in first.events] == ["TO_OVERLAY"]
    assert not second.events
