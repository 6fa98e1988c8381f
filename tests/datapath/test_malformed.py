"""A packet cut anywhere is dropped under a name, never delivered.

A frame without a whole IPv4 header is not here: BPF_PROG_TEST_RUN refuses it.
"""

import struct

import pytest

from lab.datapath.testrun import Verdict
from lab.layouts.attach import Hook
from tests.datapath.scene import (
    CLIENT,
    FROM_REMOTE,
    NEIGHBOUR,
    REMOTE,
    WORLD,
    echo,
    tcp,
    udp,
    unreachable,
)

CUT = {"DROP_INVALID", "DROP_CT_INVALID_HDR"}
WHOLE = {
    "TCP": tcp(CLIENT, NEIGHBOUR),
    "UDP": udp(CLIENT, NEIGHBOUR, payload=b""),
    "ping": echo(CLIENT, NEIGHBOUR)[:42],
}


def shortened(packet, length):
    """The packet cut, with an IPv4 length that agrees: only the inner header is missing."""
    return packet[:16] + struct.pack("!H", length - 14) + packet[18:length]


@pytest.mark.parametrize("packet", WHOLE.values(), ids=WHOLE.keys())
def test_cut_at_every_byte(scene, packet):
    for length in range(34, len(packet)):
        result = scene.run(Hook.FROM_CONTAINER, packet[:length])
        assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_INVALID"), length


@pytest.mark.parametrize("packet", WHOLE.values(), ids=WHOLE.keys())
def test_cut_at_every_byte_of_the_transport_header(scene, packet):
    for length in range(34, len(packet)):
        result = scene.run(Hook.FROM_CONTAINER, shortened(packet, length))
        assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_CT_INVALID_HDR"), length


def test_an_icmp_error_cut_at_every_byte_of_its_quote(scene):
    error = unreachable(CLIENT, NEIGHBOUR, udp(NEIGHBOUR, CLIENT))
    assert len(error) == 42 + 28
    for length in range(42, 42 + 24):
        result = scene.run(Hook.FROM_CONTAINER, shortened(error, length))
        assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_CT_INVALID_HDR"), length


ENTRIES = {
    "out of the tunnel": (Hook.FROM_OVERLAY, REMOTE, {"tunnel": FROM_REMOTE}),
    "from the node": (Hook.FROM_HOST, WORLD, {"ingress_ifindex": 1}),
    "from the underlay": (Hook.FROM_NETDEV, WORLD, {}),
}


@pytest.mark.parametrize(("hook", "source", "context"), ENTRIES.values(), ids=ENTRIES.keys())
def test_cut_at_every_byte_on_the_way_in(scene, hook, source, context):
    packet = udp(source, CLIENT)
    for length in range(34, len(packet)):
        result = scene.run(hook, packet[:length], **context)
        assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_INVALID"), length


def test_cut_at_every_byte_in_to_container(scenes):
    scene, packet = scenes(enable_endpoint_routes=True), udp(REMOTE, CLIENT)
    for length in range(34, len(packet)):
        result = scene.run(Hook.TO_CONTAINER, packet[:length])
        assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_INVALID"), length


def test_cut_tcp_header_at_the_receiver(scene):
    packet = tcp(REMOTE, CLIENT)
    for length in range(34, len(packet)):
        result = scene.deliver(shortened(packet, length))
        assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_CT_INVALID_HDR"), length


def test_every_reason_of_a_cut_is_counted_once(scene):
    result = scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, NEIGHBOUR)[:40])
    counted = [(m.name, m.packets) for m in result.metrics if m.name.startswith("DROP_")]
    assert counted == [("DROP_INVALID", 1)]
    assert result.drop_reason in CUT
