"""to-container: the pod's policy where the stack delivers, with a route per endpoint."""

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from lab.datapath.events import TraceEvent
from lab.datapath.testrun import Verdict
from lab.layouts.attach import Hook
from tests.datapath.scene import (
    CLIENT,
    CLIENT_LXC,
    CLIENT_MAC,
    NEIGHBOUR,
    NODE,
    REMOTE,
    ROUTER,
    VIP,
    WORLD,
    tcp,
    udp,
)

ETHERNET = Ether(src=CLIENT_LXC, dst=CLIENT_MAC)

SENDERS = {
    "the mark names the identity": ({"mark": 300 << 16 | 0x0F00}, 300),
    "the mark names the host": ({"mark": 0x0C00, "ingress_ifindex": 1}, 1),
    "born on the node: the host": ({}, 1),
    "forwarded: not a pod behind the tunnel, whose packets come out of it": (
        {"ingress_ifindex": 1},
        2,
    ),
}


@pytest.fixture
def routed(scenes):
    return scenes(enable_endpoint_routes=True)


@pytest.mark.parametrize(("context", "identity"), SENDERS.values(), ids=SENDERS.keys())
def test_who_sent_it(routed, context, identity):
    result = routed.run(Hook.TO_CONTAINER, udp(REMOTE, CLIENT), **context)
    told = result.event(TraceEvent)
    assert (result.verdict, told.name, told.src_identity) == (Verdict.PASS, "TO_LXC", identity)


FORWARDED = {
    "a neighbour": ({}, NEIGHBOUR, 257),
    "a pod elsewhere, where pods are routed": ({"enable_tunnel": False}, REMOTE, 258),
    "a stranger": ({}, WORLD, 2),
    "whoever pretends to be the node": ({}, NODE, 2),
    "whoever pretends to be it where pods are routed": ({"enable_tunnel": False}, NODE, 2),
    "whoever pretends to be a pod behind the tunnel": ({}, REMOTE, 2),
}


@pytest.mark.parametrize(("config", "source", "identity"), FORWARDED.values(), ids=FORWARDED)
def test_whose_a_forwarded_packet_without_a_mark_is(scenes, config, source, identity):
    scene = scenes(enable_endpoint_routes=True, **config)
    result = scene.run(Hook.TO_CONTAINER, udp(source, CLIENT), ingress_ifindex=1)
    assert result.event(TraceEvent).src_identity == identity


OTHERS = {
    "ARP of the node passes": (bytes(ETHERNET / ARP(psrc=ROUTER, pdst=CLIENT)), None),
    "IPv6 does not": (bytes(ETHERNET / IPv6()), "DROP_UNKNOWN_L3"),
    "a length beyond the frame": (udp(REMOTE, CLIENT, len=99), "DROP_INVALID"),
}


@pytest.mark.parametrize(("packet", "reason"), OTHERS.values(), ids=OTHERS.keys())
def test_what_is_no_sane_ipv4(routed, packet, reason):
    assert routed.run(Hook.TO_CONTAINER, packet).drop_reason == reason


def test_policy_is_enforced(scenes):
    scene = scenes(enable_endpoint_routes=True, enable_policy=True)
    refused = scene.run(Hook.TO_CONTAINER, udp(NEIGHBOUR, CLIENT), ingress_ifindex=1)
    assert refused.drop_reason == "DROP_POLICY"
    scene.allow(257, egress=False)
    allowed = scene.run(Hook.TO_CONTAINER, udp(NEIGHBOUR, CLIENT), ingress_ifindex=1)
    assert allowed.verdict is Verdict.PASS


def test_a_services_answer_is_translated_back(routed):
    routed.service(VIP, 80, [(REMOTE, 8080)], 1)
    routed.run(Hook.FROM_CONTAINER, tcp(CLIENT, VIP, 2000))
    back = routed.run(Hook.TO_CONTAINER, tcp(REMOTE, CLIENT, 8080, 2000, "SA"), ingress_ifindex=1)
    assert Ether(back.packet)[IP].src == VIP


def test_a_pod_reaches_itself_by_its_service(routed):
    routed.service(VIP, 80, [(CLIENT, 8080)], 1)
    request = routed.run(Hook.FROM_CONTAINER, tcp(CLIENT, VIP, 2000))
    routed.run(Hook.TO_CONTAINER, request.packet, mark=request.mark)
    answer = routed.run(Hook.FROM_CONTAINER, tcp(CLIENT, "169.254.42.1", 8080, 2000, "SA"))
    assert (request.verdict, answer.verdict) == (Verdict.PASS, Verdict.REDIRECT)
    assert Ether(answer.packet)[IP].src == VIP


def own_answer(scene):
    """A pod's answer to itself, as its service sends it back to the pod's veth."""
    scene.service(VIP, 80, [(CLIENT, 8080)], 1)
    scene.allow(0, egress=True)
    request = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, VIP, 2000))
    scene.run(Hook.TO_CONTAINER, request.packet, mark=request.mark)
    return scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, "169.254.42.1", 8080, 2000, "SA"))


def test_policy_does_not_judge_a_pods_answer_to_itself(scenes):
    scene = scenes(enable_endpoint_routes=True, enable_policy=True)
    answer = own_answer(scene)
    received = scene.run(Hook.TO_CONTAINER, answer.packet, mark=answer.mark)
    assert (received.verdict, received.drop_reason) == (Verdict.PASS, None)


def test_policy_judges_what_only_looks_like_it(scenes):
    scene = scenes(enable_endpoint_routes=True, enable_policy=True)
    answer = own_answer(scene)
    forged = scene.run(Hook.TO_CONTAINER, answer.packet, mark=answer.mark & ~0x1000)
    assert forged.drop_reason == "DROP_POLICY"


def test_without_routes_per_endpoint_it_lets_pass_what_handle_policy_decided(scenes):
    scene = scenes(enable_policy=True)
    assert scene.run(Hook.TO_CONTAINER, udp(WORLD, CLIENT)).verdict is Verdict.PASS


UNUSED = {
    "handle_policy's conntrack": (True, "tail_ipv4_ct_ingress_policy_only"),
    "handle_policy's policy": (True, "tail_ipv4_policy"),
    "to-container's conntrack": (False, "tail_ipv4_ct_ingress"),
    "to-container's policy": (False, "tail_ipv4_to_endpoint"),
}


@pytest.mark.parametrize(("routes", "program"), UNUSED.values(), ids=UNUSED.keys())
def test_the_other_way_of_delivering_is_closed(scenes, routes, program):
    scene = scenes(enable_endpoint_routes=routes)
    result = scene.run(program, udp(REMOTE, CLIENT))
    assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_EP_NOT_READY")
