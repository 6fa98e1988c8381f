"""Small pieces of the wire: the known stream, checksums, what a picture is asked for."""

import pytest

from lab.errors import UnsupportedError
from lab.packets.icmp import checksum, echo_request
from lab.wire.endpoint import pattern
from lab.wire.events import CongestionState, TcpState
from lab.wire.netem import translate
from lab.wire.rules import (
    Corrupt,
    Delay,
    Drop,
    Duplicate,
    Rate,
    Reorder,
    Script,
    Way,
    ack,
    data,
    everything,
)

PIECES = {
    "nothing": (0, 0),
    "inside": (10, 100),
    "across its period": (600, 245),
    "far out": (7, 10**9),
}


@pytest.mark.parametrize(("count", "start"), PIECES.values(), ids=PIECES.keys())
def test_the_known_stream_is_the_same_wherever_it_is_cut(count: int, start: int) -> None:
    piece = pattern(count, start)
    assert len(piece) == count
    assert piece == b"".join(pattern(1, start + n) for n in range(count))


# RFC 1071, section 3, and what follows from it
SUMS = {
    "the RFC's example": (bytes.fromhex("0001f203f4f5f6f7"), 0x220D),
    "nothing": (b"", 0xFFFF),
    "an odd byte is padded on the right": (b"\x01", 0xFEFF),
}


@pytest.mark.parametrize(("data", "expected"), SUMS.values(), ids=SUMS.keys())
def test_internet_checksum(data: bytes, expected: int) -> None:
    assert checksum(data) == expected


def test_a_message_with_its_checksum_sums_to_nothing() -> None:
    assert checksum(echo_request(7, 1, b"hello")) == 0


EVERY = everything(Way.TO_SERVER)
ASKED = {
    "the wire's own delay": ((), "delay 2500us limit 10000"),
    "a longer one for a direction": ((Delay(EVERY, 5),), "delay 7500us limit 10000"),
    "nothing gets through": ((Drop(EVERY),), "delay 2500us limit 10000 loss 100%"),
    "everything twice": ((Duplicate(EVERY),), "delay 2500us limit 10000 duplicate 100%"),
    "what happens to the other direction": (
        (Drop(everything(Way.TO_CLIENT)),),
        "delay 2500us limit 10000",
    ),
}


@pytest.mark.parametrize(("rules", "words"), ASKED.values(), ids=ASKED.keys())
def test_netem_is_asked_for(rules, words: str) -> None:
    wanted = translate(Script(rules), delay_ms=2.5, way=Way.TO_SERVER)
    assert wanted.command("eth0") == f"tc qdisc replace dev eth0 root netem {words}"


REFUSED = {
    "a packet by its ordinal": (Drop(data(2)), "neither ordinals nor kinds"),
    "packets of one kind": (Drop(ack()), "neither ordinals nor kinds"),
    "packets of a size": (
        Drop(everything(Way.TO_SERVER, longer_than_bytes=600)),
        "neither ordinals nor kinds",
    ),
    "a flipped bit": (Corrupt(EVERY), "rolls dice"),
    "another order": (Reorder(EVERY), "rolls dice"),
    "three copies": (Duplicate(EVERY, copies=2), "one copy at most"),
    "a rate": (Rate(way=Way.TO_SERVER, rate_mbit=5), "tells the sender of a full queue"),
}


@pytest.mark.parametrize(("rule", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_netem_is_refused_what_it_cannot_do_exactly(rule, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why) as refusal:
        translate(Script((rule,)), delay_ms=5, way=Way.TO_CLIENT)
    assert "TAP wire" in refusal.value.hint


def test_states_are_numbered_as_in_the_kernel() -> None:
    assert [state.name for state in CongestionState] == [
        "OPEN",
        "DISORDER",
        "CWR",
        "RECOVERY",
        "LOSS",
    ]
    assert (TcpState.ESTABLISHED, TcpState.TIME_WAIT, TcpState.CLOSING) == (1, 6, 11)
