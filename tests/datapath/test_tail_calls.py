"""A tail call that is missing is a counted drop that names its slot."""

import re

import pytest

from lab.datapath.build import SOURCES
from lab.datapath.events import DropEvent
from lab.datapath.testrun import Tunnel, Verdict
from lab.layouts.attach import Hook
from lab.layouts.core import Index
from lab.layouts.flows import ServiceFlag
from tests.datapath.scene import (
    CLIENT,
    FROM_REMOTE,
    NODE,
    REMOTE,
    ROUTED_ELSEWHERE,
    ROUTER,
    VIP,
    WORLD,
    Scene,
    tcp,
    udp,
)
from tests.datapath.test_from_container import arp

NAT = {"enable_nodeport": True, "enable_masquerade": True}
DSR = {**NAT, "enable_dsr": True, "enable_tunnel": False}


def nodeport(backend):
    """Have a NodePort, then send it a request."""

    def send(scene):
        flags = ServiceFlag.NODEPORT | ServiceFlag.ROUTABLE
        scene.service(NODE, 30080, [(backend, 80)], 1, flags=flags)
        return scene.run(Hook.FROM_NETDEV, tcp(WORLD, NODE, 2000, 30080))

    return send


def nodeport_answer(scene):
    nodeport(CLIENT)(scene)
    scene.run(Hook.FROM_HOST, tcp(WORLD, CLIENT, 2000, 80), ingress_ifindex=1)
    return scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, WORLD, 80, 2000, "SA"))


def answer_to_the_node(scene):
    """To an address SNAT has given: the translation is undone, then the service's."""
    scene.run(Hook.TO_NETDEV, tcp(CLIENT, WORLD))
    return scene.run(Hook.FROM_NETDEV, tcp(WORLD, NODE, 80, 40000, "SA"))


def answer_out_of_the_tunnel(scene):
    nodeport(REMOTE)(scene)
    [key] = [k for k, _ in scene.map("cilium_snat_v4_external").items() if k.flags & 1]
    packet = tcp(REMOTE, ROUTER, 80, key.dport, "SA")
    return scene.run(Hook.FROM_OVERLAY, packet, tunnel=Tunnel(vni=258))


def request_out_of_the_tunnel(scene):
    """A pod of another node asks for a node port by the router's address; its backend is there."""
    flags = ServiceFlag.NODEPORT | ServiceFlag.ROUTABLE
    scene.service(ROUTER, 30080, [(REMOTE, 80)], 1, flags=flags)
    packet = tcp(ROUTED_ELSEWHERE, ROUTER, 2000, 30080)
    return scene.run(Hook.FROM_OVERLAY, packet, tunnel=FROM_REMOTE)


def hook(which, packet, **context):
    return lambda scene: scene.run(which, packet, **context)


# object and slot: the configuration and the packet that need it
CALLS = {
    ("bpf_lxc", 6): ({}, hook(Hook.FROM_CONTAINER, arp(psrc=CLIENT, pdst=ROUTER))),
    ("bpf_lxc", 7): ({}, hook(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE))),
    ("bpf_lxc", 29): ({}, hook(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE))),
    ("bpf_lxc", 25): ({}, hook(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE))),
    ("bpf_lxc", 28): ({}, lambda scene: scene.deliver(udp(REMOTE, CLIENT))),
    ("bpf_lxc", 11): ({}, lambda scene: scene.deliver(udp(REMOTE, CLIENT))),
    ("bpf_lxc", 27): (
        {"enable_endpoint_routes": True},
        hook(Hook.TO_CONTAINER, udp(REMOTE, CLIENT)),
    ),
    ("bpf_lxc", 13): (
        {"enable_endpoint_routes": True},
        hook(Hook.TO_CONTAINER, udp(REMOTE, CLIENT)),
    ),
    ("bpf_lxc", 17): (NAT, nodeport_answer),
    ("bpf_host", 22): ({}, hook(Hook.FROM_HOST, udp(NODE, CLIENT))),
    ("bpf_host", 7): ({}, hook(Hook.FROM_NETDEV, udp(WORLD, NODE))),
    ("bpf_host", 15): (NAT, nodeport(REMOTE)),
    ("bpf_host", 17): (NAT, answer_to_the_node),
    ("bpf_host", 19): (NAT, hook(Hook.TO_NETDEV, udp(CLIENT, WORLD))),
    ("bpf_host", 20): (DSR, nodeport(REMOTE)),
    ("bpf_host", 36): (NAT, hook(Hook.FROM_NETDEV, udp(WORLD, NODE))),
    ("bpf_host", 38): (NAT, hook(Hook.TO_NETDEV, udp(CLIENT, WORLD))),
    ("bpf_overlay", 7): (
        {},
        hook(Hook.FROM_OVERLAY, udp(REMOTE, CLIENT), tunnel=FROM_REMOTE),
    ),
    ("bpf_overlay", 36): (NAT, hook(Hook.FROM_OVERLAY, udp(REMOTE, ROUTER), tunnel=FROM_REMOTE)),
    ("bpf_overlay", 15): (NAT, request_out_of_the_tunnel),
    ("bpf_overlay", 17): (NAT, answer_out_of_the_tunnel),
}


@pytest.mark.parametrize(
    ("where", "config", "send"),
    [(where, *case) for where, case in CALLS.items()],
    ids=[f"{name}[{slot}]" for name, slot in CALLS],
)
def test_a_missing_tail_call(where, config, send):
    name, slot = where
    with Scene(**config) as scene:
        assert scene.map("cilium_calls", name).delete(Index(index=slot))
        result = send(scene)
        told = result.event(DropEvent)
    assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_MISSED_TAIL_CALL")
    assert told.ext_error == slot


@pytest.mark.parametrize("name", ["bpf_lxc", "bpf_host", "bpf_overlay"])
def test_without_the_notifier_a_drop_is_still_counted(name):
    which = {
        "bpf_lxc": hook(Hook.FROM_CONTAINER, udp(VIP, CLIENT)),
        "bpf_host": hook(Hook.FROM_HOST, udp(NODE, "10.0.1.99")),
        "bpf_overlay": hook(Hook.TO_OVERLAY, udp(CLIENT, REMOTE)),
    }[name]
    with Scene() as scene:
        scene.map("cilium_calls", name).delete(Index(index=1))
        result = which(scene)
    assert result.verdict is Verdict.DROP
    assert not result.event(DropEvent)
    assert result.drop_reason is not None


def declared(name):
    """Slots of ``cilium_calls`` the object fills, read from the sources."""
    tag = re.compile(r'TAIL_CALL\("cilium_calls/(\d+)"\)')
    text = (SOURCES / f"{name}.c").read_text()
    headers = {"drop.h"} | ({"nodeport.h"} if '"lib/nodeport.h"' in text else set())
    for header in headers:
        text += (SOURCES / "lib" / header).read_text()
    return {int(slot) for slot in tag.findall(text)}


ELSEWHERE = {(name, 1) for name in ("bpf_lxc", "bpf_host", "bpf_overlay")}


@pytest.mark.parametrize("name", ["bpf_lxc", "bpf_host", "bpf_overlay"])
def test_every_tail_call_is_tried(name):
    tried = {slot for where, slot in {*CALLS, *ELSEWHERE} if where == name}
    assert tried == declared(name)
