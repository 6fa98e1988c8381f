"""What bpf_host.c does on cilium_host, cilium_net and the uplink, NodePort and NAT aside."""

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from lab.datapath.events import TraceEvent
from lab.datapath.testrun import Verdict
from lab.layouts.attach import Hook
from tests.datapath.scene import (
    CLIENT,
    CLIENT_LXC,
    CLIENT_MAC,
    NODE,
    OTHER_NODE,
    REMOTE,
    ROUTER,
    UNREADY,
    WORLD,
    tcp,
    udp,
)

PASS, DROP, REDIRECT = Verdict.PASS, Verdict.DROP, Verdict.REDIRECT
ETHERNET = Ether(src=CLIENT_MAC, dst=CLIENT_LXC)
V6, ASK = bytes(ETHERNET / IPv6()), bytes(ETHERNET / ARP(pdst=ROUTER))
TAGGED = bytes(ETHERNET / Dot1Q(vlan=7) / IP(src=WORLD, dst=NODE))
HOST, IDENTITY_300 = 0x0C00, 300 << 16 | 0x0F00

FROM_HOST = {
    "to a pod here: to its veth": (udp(NODE, CLIENT), REDIRECT, None),
    "to a pod elsewhere: into the tunnel": (udp(ROUTER, REMOTE), REDIRECT, None),
    "to an address of the node: across the pair": (udp(ROUTER, NODE), PASS, None),
    "to a pod nobody knows": (udp(NODE, "10.0.1.99"), DROP, "DROP_UNROUTABLE"),
    "to a pod whose programs are not loaded": (udp(NODE, UNREADY), DROP, "DROP_EP_NOT_READY"),
    "TTL 1 of a forwarded packet": (udp(WORLD, CLIENT, ttl=1), DROP, "DROP_TTL_EXCEEDED"),
    "a length beyond the frame": (udp(NODE, CLIENT, len=99), DROP, "DROP_INVALID"),
    "IPv6: not spoken here": (V6, DROP, "DROP_UNKNOWN_L3"),
    "ARP: nobody needs to answer": (ASK, PASS, None),
}


@pytest.mark.parametrize(("packet", "verdict", "reason"), FROM_HOST.values(), ids=FROM_HOST.keys())
def test_from_host(scene, packet, verdict, reason):
    result = scene.run(Hook.FROM_HOST, packet)
    assert (result.verdict, result.drop_reason) == (verdict, reason)


WHO = {
    "born on the node: the host": (udp(NODE, CLIENT), {}, 1),
    "marked as the host's": (udp(NODE, CLIENT), {"mark": HOST, "ingress_ifindex": 1}, 1),
    "marked with an identity": (udp(REMOTE, CLIENT), {"mark": IDENTITY_300}, 300),
    "forwarded from the world": (udp(WORLD, CLIENT), {"ingress_ifindex": 1}, 2),
    "forwarded from another node": (udp(OTHER_NODE, CLIENT), {"ingress_ifindex": 1}, 6),
    "forwarded with our own address: NAT put it there": (
        udp(NODE, CLIENT),
        {"ingress_ifindex": 1},
        2,
    ),
    "forwarded with the address of a pod behind the tunnel: forged": (
        udp(REMOTE, CLIENT),
        {"ingress_ifindex": 1},
        2,
    ),
}


@pytest.mark.parametrize(("packet", "context", "identity"), WHO.values(), ids=WHO.keys())
def test_who_sent_what_leaves_through_cilium_host(scene, packet, context, identity):
    result = scene.run(Hook.FROM_HOST, packet, **context)
    delivered = [e for e in result.events if isinstance(e, TraceEvent)][-1]
    assert (delivered.name, delivered.src_identity) == ("TO_LXC", identity)


def test_without_a_tunnel_a_forwarded_pod_is_who_its_address_says(scenes):
    scene = scenes(enable_tunnel=False)
    result = scene.run(Hook.FROM_HOST, udp(REMOTE, CLIENT), ingress_ifindex=1)
    assert result.events[-1].src_identity == 258


def test_elsewhere_the_host_is_a_remote_node(scene):
    result = scene.run(Hook.FROM_HOST, udp(ROUTER, REMOTE))
    assert [event.name for event in result.events] == ["FROM_HOST", "TO_OVERLAY"]


def test_policy_is_enforced_on_what_the_node_sends(scenes):
    scene = scenes(enable_policy=True)
    assert scene.run(Hook.FROM_HOST, udp(NODE, CLIENT)).drop_reason == "DROP_POLICY"
    scene.allow(1, egress=False)
    assert scene.run(Hook.FROM_HOST, udp(NODE, CLIENT)).verdict is REDIRECT


def test_to_host_tells_who_sent_it(scene):
    result = scene.run(Hook.TO_HOST, udp(REMOTE, ROUTER), mark=IDENTITY_300)
    told = result.event(TraceEvent)
    assert (result.verdict, told.name, told.src_identity) == (PASS, "TO_HOST", 300)


TO_NETDEV = {
    "a tunnel packet: its sender's": (300 << 16 | 0x0400, 300),
    "a pod's packet through the stack": (IDENTITY_300, 300),
    "anything else is the host's": (0, 1),
}


@pytest.mark.parametrize(("mark", "identity"), TO_NETDEV.values(), ids=TO_NETDEV.keys())
def test_to_netdev_tells_who_sends(scene, mark, identity):
    result = scene.run(Hook.TO_NETDEV, udp(NODE, OTHER_NODE), mark=mark)
    told = result.event(TraceEvent)
    assert (result.verdict, told.name, told.src_identity) == (PASS, "TO_NETWORK", identity)


FROM_NETDEV = {
    "for the node: its stack's": (udp(WORLD, NODE), PASS, None),
    "for a pod, legacy routing: the stack's": (udp(WORLD, CLIENT), PASS, None),
    "ARP: the stack's": (ASK, PASS, None),
    "IPv6: the stack's": (V6, PASS, None),
    "a tag: this node has no VLANs": (TAGGED, DROP, "DROP_VLAN_FILTERED"),
    "a length beyond the frame": (udp(WORLD, NODE, len=99), DROP, "DROP_INVALID"),
}


@pytest.mark.parametrize(
    ("packet", "verdict", "reason"), FROM_NETDEV.values(), ids=FROM_NETDEV.keys()
)
def test_from_netdev(scene, packet, verdict, reason):
    result = scene.run(Hook.FROM_NETDEV, packet)
    assert (result.verdict, result.drop_reason) == (verdict, reason)


def test_a_mark_from_outside_says_nothing(scene):
    assert scene.run(Hook.FROM_NETDEV, udp(WORLD, NODE), mark=IDENTITY_300).mark == 0


DIRECT = {
    "to the pod, from the world": (udp(WORLD, CLIENT), True, REDIRECT, 2),
    "to the pod, claiming a pod behind the tunnel: forged": (
        udp(REMOTE, CLIENT),
        True,
        REDIRECT,
        2,
    ),
    "to the pod, from a routed pod": (udp(REMOTE, CLIENT), False, REDIRECT, 258),
}


@pytest.mark.parametrize(
    ("packet", "tunnel", "verdict", "identity"), DIRECT.values(), ids=DIRECT.keys()
)
def test_host_routing_delivers_from_the_uplink(scenes, packet, tunnel, verdict, identity):
    scene = scenes(enable_host_routing=True, enable_tunnel=tunnel)
    result = scene.run(Hook.FROM_NETDEV, packet)
    assert (result.verdict, result.events[-1].src_identity) == (verdict, identity)


def test_host_routing_leaves_the_nodes_own_packets_to_the_stack(scenes):
    scene = scenes(enable_host_routing=True)
    assert scene.run(Hook.FROM_NETDEV, udp(WORLD, NODE)).verdict is PASS


def test_policy_is_enforced_on_what_host_routing_delivers(scenes):
    scene = scenes(enable_host_routing=True, enable_policy=True)
    assert scene.run(Hook.FROM_NETDEV, udp(WORLD, CLIENT)).drop_reason == "DROP_POLICY"


def test_a_tcp_packet_for_a_pod_is_routed_with_one_hop_less(scene):
    result = scene.run(Hook.FROM_HOST, tcp(NODE, CLIENT, ttl=64))
    assert Ether(result.packet)[IP].ttl == 63
