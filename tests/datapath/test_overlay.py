"""What bpf_overlay.c does with packets around the tunnel."""

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from lab.datapath.events import TraceEvent
from lab.datapath.testrun import Tunnel, Verdict
from lab.layouts.attach import Hook
from tests.datapath.scene import (
    CLIENT,
    CLIENT_LXC,
    CLIENT_MAC,
    FROM_REMOTE,
    NODE,
    REMOTE,
    ROUTER,
    UNREADY,
    WORLD,
    tcp,
    udp,
)

PASS, DROP, REDIRECT = Verdict.PASS, Verdict.DROP, Verdict.REDIRECT
V6 = bytes(Ether(src=CLIENT_MAC, dst=CLIENT_LXC) / IPv6())

CASES = {
    "for a pod: to its veth": (tcp(REMOTE, CLIENT), FROM_REMOTE, REDIRECT, None),
    "for the node: across cilium_net": (tcp(REMOTE, ROUTER), FROM_REMOTE, REDIRECT, None),
    "for its underlay address: across cilium_net": (tcp(REMOTE, NODE), FROM_REMOTE, REDIRECT, None),
    "for nobody known: the node's stack judges": (tcp(REMOTE, WORLD), FROM_REMOTE, REDIRECT, None),
    "for a pod whose programs are not loaded": (
        tcp(REMOTE, UNREADY),
        FROM_REMOTE,
        DROP,
        "DROP_EP_NOT_READY",
    ),
    "VNI 1: nobody else is this host": (
        tcp(REMOTE, CLIENT),
        Tunnel(vni=1),
        DROP,
        "DROP_INVALID_IDENTITY",
    ),
    "VNI 0: nobody is unknown": (
        tcp(REMOTE, CLIENT),
        Tunnel(vni=0),
        DROP,
        "DROP_INVALID_IDENTITY",
    ),
    "no tunnel at all": (tcp(REMOTE, CLIENT), None, DROP, "DROP_NO_TUNNEL_KEY"),
    "IPv6: not spoken here": (V6, FROM_REMOTE, DROP, "DROP_UNKNOWN_L3"),
    "TTL 1: the last hop was the other node": (
        tcp(REMOTE, CLIENT, ttl=1),
        FROM_REMOTE,
        DROP,
        "DROP_TTL_EXCEEDED",
    ),
    "a length beyond the frame": (tcp(REMOTE, CLIENT, len=99), FROM_REMOTE, DROP, "DROP_INVALID"),
}


@pytest.mark.parametrize(
    ("packet", "tunnel", "verdict", "reason"), CASES.values(), ids=CASES.keys()
)
def test_from_overlay(scene, packet, tunnel, verdict, reason):
    result = scene.run(Hook.FROM_OVERLAY, packet, tunnel=tunnel)
    assert (result.verdict, result.drop_reason) == (verdict, reason)


def test_the_vni_is_the_identity_whatever_the_address_says(scene):
    result = scene.run(Hook.FROM_OVERLAY, udp(WORLD, CLIENT), tunnel=Tunnel(vni=300))
    told = [event for event in result.events if isinstance(event, TraceEvent)]
    assert [(event.name, event.src_identity) for event in told] == [
        ("FROM_OVERLAY", 300),
        ("TO_LXC", 300),
    ]


def test_policy_is_enforced_on_what_comes_out_of_the_tunnel(scenes):
    scene = scenes(enable_policy=True)
    scene.allow(258, egress=False)
    allowed = scene.run(Hook.FROM_OVERLAY, udp(REMOTE, CLIENT), tunnel=FROM_REMOTE)
    refused = scene.run(Hook.FROM_OVERLAY, udp(REMOTE, CLIENT, 1), tunnel=Tunnel(vni=300))
    assert (allowed.verdict, refused.drop_reason) == (REDIRECT, "DROP_POLICY")


def test_the_node_gets_it_with_the_senders_identity_addressed_to_cilium_host(scene):
    result = scene.run(Hook.FROM_OVERLAY, tcp(REMOTE, ROUTER), tunnel=FROM_REMOTE)
    assert result.mark == 258 << 16 | 0x0F00
    assert Ether(result.packet).dst == "0a:00:0a:00:01:01"


def test_with_routes_per_endpoint_policy_waits_at_the_veth(scenes):
    scene = scenes(enable_endpoint_routes=True, enable_policy=True)
    result = scene.run(Hook.FROM_OVERLAY, tcp(REMOTE, CLIENT), tunnel=FROM_REMOTE)
    assert (result.verdict, result.mark) == (REDIRECT, 258 << 16 | 0x0F00)


OUTGOING = {
    "a packet one of our programs addressed": (FROM_REMOTE, PASS, None),
    "a packet the stack routed here": (None, DROP, "DROP_NO_TUNNEL_KEY"),
}


@pytest.mark.parametrize(("tunnel", "verdict", "reason"), OUTGOING.values(), ids=OUTGOING.keys())
def test_to_overlay(scene, tunnel, verdict, reason):
    result = scene.run(Hook.TO_OVERLAY, tcp(CLIENT, REMOTE), tunnel=tunnel)
    assert (result.verdict, result.drop_reason) == (verdict, reason)


def test_the_outer_packet_will_be_known_by_its_mark(scene):
    result = scene.run(Hook.TO_OVERLAY, tcp(CLIENT, REMOTE), tunnel=Tunnel(vni=256))
    assert result.mark == 256 << 16 | 0x0400
    assert Ether(result.packet)[IP].dst == REMOTE
