"""Records of cilium_events become values with the datapath's own names."""

import shutil
import struct
from ipaddress import IPv4Address

import pytest

from lab.datapath.events import (
    CaptureEvent,
    DebugEvent,
    DropEvent,
    PolicyVerdictEvent,
    TraceEvent,
    UnknownEvent,
    decode,
    vocabulary,
)
from lab.errors import KernelError
from lab.kernel.bpfring import Sample

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")

PACKET = bytes(range(20))


def header(kind, subtype, source=266, version=1):
    # type, subtype, endpoint, hash, whole length, captured bytes, version
    return struct.pack("<BBHIIHH", kind, subtype, source, 0xE6866E21, 98, len(PACKET), version)


def event(data, cpu=1):
    # a perf ring rounds records up to 8 bytes: what follows the packet is noise
    return decode(Sample(cpu, data + b"\xaa\xaa\xaa"), vocabulary())


def test_a_drop_says_why_where_and_for_whom():
    body = struct.pack("<IIIHBbI", 256, 300, 522, 1234, 2, -7, 10)
    drop = event(header(1, 133) + body + PACKET)
    assert isinstance(drop, DropEvent)
    assert (drop.reason, drop.name, drop.text) == (133, "DROP_POLICY", "Policy denied, -7")
    assert (drop.file, drop.line, drop.ifindex, drop.ext_error) == ("bpf_lxc.c", 1234, 10, -7)
    assert (drop.src_identity, drop.dst_identity, drop.dst_endpoint) == (256, 300, 522)
    assert (drop.cpu, drop.source, drop.hash, drop.length) == (1, 266, 0xE6866E21, 98)
    assert drop.packet == PACKET


def test_a_trace_says_where_to_and_what_conntrack_thought():
    original = IPv4Address("10.60.1.115").packed + bytes(12)
    body = struct.pack("<IIHBBI", 256, 300, 0, 2, 0, 5) + original
    trace = event(header(4, 4) + body + PACKET)
    assert isinstance(trace, TraceEvent)
    assert (trace.name, trace.reason, trace.encrypted) == ("TO_OVERLAY", "reply", False)
    assert (trace.ifindex, trace.original_source) == (5, IPv4Address("10.60.1.115"))
    assert trace.packet == PACKET


def test_the_encrypted_bit_is_no_part_of_the_reason():
    trace = event(header(4, 9) + struct.pack("<IIHBBI", 0, 0, 0, 0x81, 0, 0) + bytes(16) + PACKET)
    assert (trace.reason, trace.encrypted, trace.original_source) == ("established", True, None)


VERDICTS = {
    "allowed by identity alone, outgoing": (0, 0x02 | 1 << 3, ("egress", "L3-Only", True, "")),
    "denied, incoming": (-133, 0x01, ("ingress", "none", False, "DROP_POLICY")),
    "to the proxy": (10001, 0x01 | 2 << 3, ("ingress", "L3-L4", True, "")),
}


@pytest.mark.parametrize(("verdict", "bits", "expected"), VERDICTS.values(), ids=VERDICTS.keys())
def test_a_policy_verdict_says_who_which_way_and_why(verdict, bits, expected):
    body = struct.pack("<Ii", 300, verdict) + struct.pack(">H", 80) + bytes([6, bits, 0, 0, 0, 0])
    said = event(header(5, 0) + body + PACKET)
    assert isinstance(said, PolicyVerdictEvent)
    assert (said.direction, said.match, said.allowed, said.name) == expected
    assert (said.remote_identity, said.port, said.protocol, said.packet) == (300, 80, 6, PACKET)


def test_debug_notes_carry_three_numbers():
    note = event(struct.pack("<BBHIIII", 2, 9, 266, 7, 1, 2, 3))
    assert note == DebugEvent(cpu=1, source=266, hash=7, kind=9, arguments=(1, 2, 3))


def test_captures_carry_their_packet():
    capture = event(header(3, 4) + struct.pack("<II", 8, 9) + PACKET)
    assert isinstance(capture, CaptureEvent)
    assert (capture.kind, capture.arguments, capture.packet) == (4, (8, 9), PACKET)


def test_an_unknown_type_is_kept_whole():
    unknown = event(header(77, 0) + PACKET)
    assert isinstance(unknown, UnknownEvent)
    assert unknown.data.startswith(header(77, 0) + PACKET)


def test_unknown_numbers_stay_visible():
    body = struct.pack("<IIIHBbI", 0, 0, 0, 1, 99, 0, 0)
    drop = event(header(1, 254) + body + PACKET)
    assert (drop.name, drop.text, drop.file) == ("REASON_254", "254", "file 99")


@pytest.mark.parametrize(
    "kind", [1, 2, 3, 4, 5], ids=["drop", "debug", "capture", "trace", "verdict"]
)
@pytest.mark.parametrize("length", [0, 1, 15, 19])
def test_a_cut_record_is_an_error_not_a_guess(kind, length):
    with pytest.raises(KernelError, match="too short"):
        decode(Sample(0, (header(kind, 133) + bytes(30))[:length]), vocabulary())


def test_every_drop_has_a_text_and_a_negative_constant():
    names = vocabulary()
    assert len(names.drops) > 70
    assert set(names.drops) == set(names.drop_texts)
    assert all(130 <= number < 256 for number in names.drops)
