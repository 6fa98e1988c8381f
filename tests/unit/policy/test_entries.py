"""Layout of policy-map entries, ports as prefixes, and the look-up."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import InputError
from lab.policy.entries import (
    EntryKey,
    absent,
    look_up,
    pack_value,
    port_prefixes,
    unpack_value,
)
from lab.policy.objects import Direction

ports = st.integers(0, 0xFFFF)


@given(ports, ports)
def test_prefixes_cover_exactly_the_range(one, other):
    first, last = sorted((one, other))
    covered = [port + n for port, bits in port_prefixes(first, last) for n in range(1 << 16 - bits)]
    assert covered == list(range(first, last + 1))


@given(ports, ports)
def test_a_range_needs_at_most_thirty_prefixes(one, other):
    assert len(port_prefixes(*sorted((one, other)))) <= 30


@pytest.mark.parametrize(
    ("first", "last"), [(2, 1), (-1, 5), (0, 65536)], ids=["empty", "negative", "too large"]
)
def test_impossible_ranges_are_refused(first, last):
    with pytest.raises(InputError, match="no range"):
        port_prefixes(first, last)


def test_key_has_the_layout_of_the_c_struct():
    key = EntryKey(0x01020304, True, 6, 0x1F90, 16)
    assert key.pack() == struct.pack("<I", 0x01020304) + bytes([0x1F, 0x90, 6, 1])


KEYS = {
    "everything": (EntryKey(7, False), bytes([0, 0, 0, 0]), 17),
    "everything that is sent": (EntryKey(7, True), bytes([0, 0, 0, 1]), 17),
    "a protocol": (EntryKey(7, False, 17), bytes([0, 0, 17, 0]), 16),
    "a port": (EntryKey(7, False, 17, 53, 16), bytes([0, 53, 17, 0]), 0),
    "port 0, which is not all ports": (EntryKey(7, False, 1, 0, 16), bytes([0, 0, 1, 0x20]), 0),
    "a block that begins at 0": (EntryKey(7, True, 6, 0, 15), bytes([0, 0, 6, 1 | 1 << 1]), 1),
    "half of all ports": (EntryKey(7, False, 6, 32768, 1), bytes([128, 0, 6, 15 << 1]), 15),
}


@pytest.mark.parametrize(("key", "tail", "number"), KEYS.values(), ids=KEYS.keys())
def test_key_in_bytes_and_back(key, tail, number):
    assert (key.pack(), key.class_number) == (bytes([7, 0, 0, 0]) + tail, number)
    assert EntryKey.unpack(key.pack()) == key


@given(st.integers(0, 1 << 32 - 1), st.booleans(), st.integers(1, 255), ports, st.integers(0, 16))
def test_no_two_entries_have_the_same_bytes(identity, egress, protocol, port, bits):
    key = EntryKey(identity, egress, protocol, port & 0xFFFF << 16 - bits, bits)
    assert EntryKey.unpack(key.pack()) == key


NAMED, ANYBODY, OPEN = (1 << 18) - 1, (1 << 18) - 1 << 32, 1 << 63
ABSENT = {
    "an empty map: nothing to look for": ({}, NAMED | ANYBODY, NAMED | ANYBODY),
    "no policy in either direction": (
        {EntryKey(0, True): False, EntryKey(0, False): False},
        (NAMED | ANYBODY | OPEN) & ~(1 << 49),
        (NAMED | ANYBODY | OPEN) & ~(1 << 49),
    ),
    "anybody may send nothing: that is a policy": (
        {EntryKey(0, True): True},
        (NAMED | ANYBODY) & ~(1 << 49),
        NAMED | ANYBODY,
    ),
    "anybody, and one more word about a peer": (
        {EntryKey(0, False): False, EntryKey(7, False, 6, 80, 16): True},
        NAMED | ANYBODY,
        (NAMED | ANYBODY) & ~(1 << 49 | 1),
    ),
    "blocks of 16 ports and of 2, of a peer; a protocol, of anybody": (
        {
            EntryKey(7, False, 6, 80, 12): False,
            EntryKey(7, False, 6, 96, 15): False,
            EntryKey(0, False, 17): False,
        },
        NAMED | ANYBODY,
        (NAMED | ANYBODY) & ~(1 << 4 | 1 << 1 | 1 << 48),
    ),
}


@pytest.mark.parametrize(("entries", "egress", "ingress"), ABSENT.values(), ids=ABSENT.keys())
def test_what_there_is_nothing_of(entries, egress, ingress):
    found = absent(entries)
    assert (found.egress, found.ingress) == (egress, ingress)


def test_value_keeps_deny_flag_and_what_is_compared():
    raw = pack_value(True, EntryKey(7, False, 6, 0, 0))
    assert (len(raw), raw[2] & 1, raw[2] >> 3) == (24, 1, 8)
    assert unpack_value(raw) == (True, 0, 0)


ANY, TCP = EntryKey(0, False), EntryKey(0, False, 6)
ID, ID_TCP, ID_80 = EntryKey(300, False), EntryKey(300, False, 6), EntryKey(300, False, 6, 80, 16)
LOOKUPS = {
    "empty map: nothing allows it": ({}, None, 133),
    "identity and port: allowed": ({ID_80: False}, ID_80, 0),
    "another port only: not allowed": ({EntryKey(300, False, 6, 81, 16): False}, None, 133),
    "other direction only: not allowed": ({EntryKey(300, True): False}, None, 133),
    "any identity: allowed": ({ANY: False}, ANY, 0),
    "deny of the identity beats allow of anybody": ({ID: True, ANY: False}, ID, 181),
    "deny of anybody beats allow of the identity": ({ID_80: False, TCP: True}, TCP, 181),
    "the longer prefix decides who is named": ({ID_80: False, ANY: False}, ID_80, 0),
    "a range that holds the port": (
        {EntryKey(300, False, 6, 64, 10): False},
        EntryKey(300, False, 6, 64, 10),
        0,
    ),
}


@pytest.mark.parametrize(("entries", "key", "reason"), LOOKUPS.values(), ids=LOOKUPS.keys())
def test_look_up(entries, key, reason):
    match = look_up(entries, identity=300, direction=Direction.INGRESS, protocol=6, port=80)
    assert (match.key, match.reason) == (key, reason)
