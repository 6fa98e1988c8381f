"""A program of the user's runs after the pod's programs have decided, and changes no verdict."""

import struct

import pytest

from lab.datapath.build import build_objects
from lab.datapath.testrun import Verdict
from lab.kernel.bpf import ProgramType, load_object
from lab.layouts.attach import Hook
from tests.datapath.scene import CLIENT, NEIGHBOUR, REMOTE, WORLD, Scene, tcp, udp

INGRESS, EGRESS = 0, 1


@pytest.fixture
def counter():
    """The example program: bytes by identity."""
    path = build_objects(["bpf_custom"])["bpf_custom"]
    with load_object(path, default_type=ProgramType.SCHED_CLS) as loaded:
        yield loaded


def put(scene, counter, slot):
    program = struct.pack("<I", counter.programs["custom_bytecount"].fd)
    scene.map("cilium_calls_custom").map.update(struct.pack("<I", slot), program)


def counted(counter):
    items = counter.maps["bytecount_map"].items()
    return {struct.unpack("<I", key)[0]: struct.unpack("<Q", value)[0] for key, value in items}


def leave(scene, to):
    return scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, to))


SENT = {
    "into the tunnel": (REMOTE, Verdict.REDIRECT, 258),
    "to the stack": (WORLD, Verdict.PASS, 2),
}


@pytest.mark.parametrize(("to", "verdict", "identity"), SENT.values(), ids=SENT.keys())
def test_what_the_pod_sends_is_counted_by_receiver(counter, to, verdict, identity):
    with Scene(enable_custom_calls=True) as scene:
        put(scene, counter, EGRESS)
        assert leave(scene, to).verdict is verdict
    assert counted(counter) == {identity: len(tcp(CLIENT, to))}


def test_what_the_pod_receives_is_counted_by_sender(counter):
    packet = udp(REMOTE, CLIENT)
    with Scene(enable_custom_calls=True) as scene:
        put(scene, counter, INGRESS)
        assert scene.deliver(packet).verdict is Verdict.REDIRECT
    assert counted(counter) == {258: len(packet)}


def test_what_the_pod_receives_through_the_stack_is_counted_too(counter):
    with Scene(enable_custom_calls=True, enable_endpoint_routes=True) as scene:
        put(scene, counter, INGRESS)
        result = scene.run(Hook.TO_CONTAINER, udp(NEIGHBOUR, CLIENT), ingress_ifindex=1)
    assert (result.verdict, set(counted(counter))) == (Verdict.PASS, {257})


def test_another_endpoints_slot_is_its_own(counter):
    with Scene(enable_custom_calls=True) as scene:
        put(scene, counter, INGRESS)
        scene.run(Hook.FROM_CONTAINER, udp(CLIENT, NEIGHBOUR))
    assert counted(counter) == {}


def test_an_empty_slot_is_counted_and_changes_nothing():
    with Scene(enable_custom_calls=True) as scene:
        result = leave(scene, WORLD)
    assert result.verdict is Verdict.PASS
    assert "REASON_MISSED_CUSTOM_CALL" in {change.name for change in result.metrics}


def test_switched_off_nobody_is_asked(counter):
    with Scene() as scene:
        put(scene, counter, EGRESS)
        leave(scene, WORLD)
    assert counted(counter) == {}
