"""Layout of policy-map entries, ports as prefixes, and the look-up."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import InputError
from lab.policy.entries import EntryKey, look_up, pack_value, port_prefixes, unpack_value
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
    assert key.pack() == struct.pack("<II", 64, 0x01020304) + bytes([1, 6, 0x1F, 0x90])
    assert EntryKey.unpack(key.pack()) == key


def test_value_keeps_deny_flag_and_prefix_length():
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
