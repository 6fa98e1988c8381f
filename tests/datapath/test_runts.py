"""Frames too short for BPF_PROG_TEST_RUN, sent over a real veth: cut within the IPv4 header."""

import socket

import pytest

from lab.kernel.bpfattach import Direction, attach_tc
from lab.kernel.netns import NetworkNamespace
from lab.layouts.attach import Hook
from lab.layouts.core import MetricsKey
from lab.waiting import eventually
from tests.datapath.scene import CLIENT, NEIGHBOUR, Scene, udp

HOOKS = {
    "from the pod": (Hook.FROM_CONTAINER, 2),
    "from the underlay": (Hook.FROM_NETDEV, 1),
}


@pytest.fixture(scope="module")
def wire():
    """A namespace with a veth pair: what goes into ``pod`` comes out of ``lxc``."""
    made = NetworkNamespace.create("wire")
    made.request("link", "add", ifname="lxc", kind="veth", peer={"ifname": "pod"})
    for link in made.request("link", "dump"):
        made.request("link", "set", index=link["index"], state="up")
    yield made
    made.close()


def counted(scene, reason, direction):
    value = scene.map("cilium_metrics").lookup(MetricsKey(reason=reason, dir=direction))
    return value.count if value else 0


@pytest.mark.parametrize(("hook", "direction"), HOOKS.values(), ids=HOOKS.keys())
def test_cut_at_every_byte_of_the_ipv4_header(wire, hook, direction):
    packet, lengths = udp(CLIENT, NEIGHBOUR), range(15, 34)
    with Scene() as scene, wire.entered():
        attach_tc(scene.program(hook), socket.if_nametoindex("lxc"), Direction.INGRESS)
        before = counted(scene, 134, direction)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("pod", 0))
            for length in lengths:
                sender.send(packet[:length])
        eventually(
            lambda: counted(scene, 134, direction) == before + len(lengths),
            within_s=2.0,
            what="a counted DROP_INVALID for every cut frame",
        )
