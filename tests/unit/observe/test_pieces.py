"""What may be cut out of a large packet, or merged into one that GRO holds."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lab.observe.headers import TCP, UDP, Packet
from lab.observe.pieces import cut_from, follows, grown_to

SENT = Packet(
    UDP, IPv4Address("10.0.1.10"), IPv4Address("10.0.1.11"), 65535, (6000, 6100), size=2500,
    total=2528, payload=b"abc",
)  # fmt: skip
STREAM = replace(SENT, protocol=TCP, serial=(2**32 - 500, 7, 16))
KNOWN = {0: 1000}


def datagram(place: int, size: int, **changes: object) -> Packet:
    ident = (SENT.ident + place) & 0xFFFF
    return replace(SENT, ident=ident, size=size, total=size + 28, **changes)


def segment(offset: int, size: int) -> Packet:
    return replace(STREAM, serial=((STREAM.serial[0] + offset) & 0xFFFFFFFF, 7, 16), size=size)


CUTS = {
    "the first, with the same beginning": (SENT, datagram(0, 1000), {}, True),
    "the first, with another beginning": (SENT, datagram(0, 1000, payload=b"x"), {}, False),
    "a later one of the same length": (SENT, datagram(1, 1000), KNOWN, True),
    "a later one that is shorter": (SENT, datagram(1, 900), KNOWN, False),
    "the last, as long as the rest": (SENT, datagram(2, 500), KNOWN, True),
    "the last, one byte too long": (SENT, datagram(2, 501), KNOWN, False),
    "one behind the last": (SENT, datagram(3, 500), KNOWN, False),
    "a later one while the first is not known": (SENT, datagram(1, 1000), {}, False),
    "one that came already": (SENT, datagram(1, 1000), {0: 1000, 1: 1000}, False),
    "one as long as the whole": (SENT, datagram(0, 2500), {}, False),
    "TCP: bytes of it, across the end of the numbers": (STREAM, segment(1000, 1000), {}, True),
    "TCP: bytes beyond it": (STREAM, segment(2000, 1000), {}, False),
    "TCP: no bytes": (STREAM, segment(0, 0), {}, False),
}


@pytest.mark.parametrize(("whole", "piece", "known", "right"), CUTS.values(), ids=CUTS.keys())
def test_a_piece_is_told_by_its_place(
    whole: Packet, piece: Packet, known: dict[int, int], right: bool
) -> None:
    assert bool(cut_from(whole, piece, dict(known))) is right


HELD = datagram(0, 1000)
MERGES = {
    "the next of the same length": (HELD, 1000, datagram(1, 1000), True),
    "a shorter one, which is the last": (HELD, 2000, datagram(2, 500), True),
    "one behind the last": (HELD, 2500, datagram(3, 500), False),
    "a longer one": (HELD, 1000, datagram(1, 1001), False),
    "one of another flow": (HELD, 1000, datagram(1, 1000, ports=(6001, 6100)), False),
    "TCP: the next bytes": (segment(0, 1000), 1000, segment(1000, 900), True),
    "TCP: bytes after a gap": (segment(0, 1000), 1000, segment(2000, 900), False),
}


@pytest.mark.parametrize(("first", "grown", "piece", "right"), MERGES.values(), ids=MERGES.keys())
def test_gro_merges_what_follows(first: Packet, grown: int, piece: Packet, right: bool) -> None:
    assert follows(first, grown, piece) is right


GROWN = {
    "with what was merged so far": (2000, None, datagram(0, 2000), True),
    "completed by a piece that GRO has not told of": (2000, datagram(2, 500), SENT, True),
    "longer than what was merged": (2000, None, SENT, False),
    "another identification": (2000, None, datagram(1, 2000), False),
    "never held": (0, None, HELD, False),
}


@pytest.mark.parametrize(("grown", "last", "now", "right"), GROWN.values(), ids=GROWN.keys())
def test_a_held_packet_is_known_by_its_length(
    grown: int, last: Packet | None, now: Packet, right: bool
) -> None:
    assert grown_to(HELD, grown, last, now) is right
