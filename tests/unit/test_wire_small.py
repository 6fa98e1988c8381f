"""Small pieces of the wire: the known stream, checksums, what a picture is asked for."""

import pytest

from lab.wire.endpoint import pattern
from lab.wire.events import CongestionState, TcpState
from lab.wire.netem import translate
from lab.wire.rules import Script
from lab.wire.tun import checksum, echo_request

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


def test_netem_is_asked_for_the_wires_delay() -> None:
    wanted = translate(Script(), delay_ms=2.5)
    assert wanted.command("eth0") == "tc qdisc add dev eth0 root netem delay 2500us limit 10000"


def test_states_are_numbered_as_in_the_kernel() -> None:
    assert [state.name for state in CongestionState] == [
        "OPEN",
        "DISORDER",
        "CWR",
        "RECOVERY",
        "LOSS",
    ]
    assert (TcpState.ESTABLISHED, TcpState.TIME_WAIT, TcpState.CLOSING) == (1, 6, 11)
