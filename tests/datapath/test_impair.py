"""The program at the receiver's ingress judges every packet as the TAP wire's judge does."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.errors import UnsupportedError
from lab.wire.frames import Flag
from lab.wire.ingress import IngressPrograms, check_supported
from lab.wire.judge import Judge
from lab.wire.rules import (
    Corrupt,
    Delay,
    Drop,
    Duplicate,
    Kind,
    Match,
    Rate,
    Reorder,
    Script,
    Way,
    data,
)

pytestmark = pytest.mark.live
LOOPBACK = 1
TC_ACT_SHOT = 2
ISN = 0xFFFFF800
CLIENT, SERVER = bytes([10, 9, 0, 1]), bytes([10, 9, 0, 2])


def tcp(flags: int, length: int, seq: int, ack: int, window: int) -> bytes:
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + length, 1, 0, 64, 6, 0, CLIENT, SERVER)
    head = struct.pack(
        "!HHIIBBHHH", 4000, 80, (ISN + seq) & 0xFFFFFFFF, ack, 0x50, flags, window, 0, 0
    )
    return bytes(12) + b"\x08\x00" + ip + head + bytes(length)


def udp(length: int) -> bytes:
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + length, 1, 0, 64, 17, 0, CLIENT, SERVER)
    return (
        bytes(12) + b"\x08\x00" + ip + struct.pack("!HHHH", 4000, 53, 8 + length, 0) + bytes(length)
    )


FLAGS = (
    Flag.SYN,
    Flag.SYN | Flag.ACK,
    Flag.ACK,
    Flag.ACK | Flag.FIN,
    Flag.RST,
    Flag.ACK | Flag.PSH,
)
FRAMES = st.one_of(
    st.builds(
        tcp,
        st.sampled_from(FLAGS),
        st.sampled_from((0, 0, 10, 1000)),
        st.sampled_from((0, 1, 1001, 2001)),
        st.sampled_from((1, 501)),
        st.sampled_from((0, 1000, 2000)),
    ),
    st.builds(udp, st.sampled_from((4, 900))),
    st.just(bytes(12) + b"\x08\x06" + bytes(28)),
)
MATCHES = st.builds(
    lambda kind, nth, first_byte, longer: Match(
        kind=kind,
        way=Way.TO_SERVER,
        nth=tuple(sorted(nth)),
        first_byte=first_byte if kind is Kind.DATA else None,
        longer_than_bytes=longer,
    ),
    st.sampled_from(tuple(Kind)),
    st.sets(st.integers(1, 6), max_size=3),
    st.sampled_from((None, None, 1, 1001)),
    st.sampled_from((0, 0, 500)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=st.lists(FRAMES, min_size=1, max_size=14), match=MATCHES)
def test_program_and_judge_lose_the_same_packets(frames, match) -> None:
    script = Script((Drop(match),))
    judge = Judge(script)
    expected = [judge.judge(Way.TO_SERVER, frame, 0)[0].lost for frame in frames]
    programs = IngressPrograms()
    try:
        programs.change(script, {Way.TO_SERVER: LOOPBACK, Way.TO_CLIENT: 99})
        run = programs.received.test_run
        assert [run(frame).return_code == TC_ACT_SHOT for frame in frames] == expected
        assert bool(programs.unmet()) == bool(judge.unmet())
    finally:
        programs.close()


def test_every_packet_is_written_down_with_its_fate() -> None:
    programs = IngressPrograms()
    try:
        programs.change(Script((Drop(data(2)),)), {Way.TO_SERVER: LOOPBACK, Way.TO_CLIENT: 99})
        frame = tcp(Flag.ACK, 500, 1, 1, 1000)
        for _ in range(3):
            programs.received.test_run(frame)
        seen = programs.observations()
    finally:
        programs.close()
    assert [item.fate for item in seen] == [0, 1, 0]
    assert {item.frame_bytes for item in seen} == {len(frame)}
    assert {item.head for item in seen} == {frame[:188]}
    assert all(item.received and item.state is None for item in seen)


REFUSED = {
    "a delay": [Delay(data(1), 5)],
    "an order": [Reorder(data(1))],
    "a flipped bit": [Corrupt(data(1))],
    "a rate": [Rate(way=Way.TO_SERVER, rate_mbit=1)],
    "an ordinal beyond its table": [Drop(data(2000))],
    "more copies than it makes": [Duplicate(data(1), copies=20)],
    "more rules than it holds": [Drop(data(n)) for n in range(1, 10)],
}


@pytest.mark.parametrize("rules", REFUSED.values(), ids=REFUSED.keys())
def test_what_a_program_cannot_do_is_refused(rules) -> None:
    with pytest.raises(UnsupportedError, match="ingress") as refusal:
        check_supported(Script(tuple(rules)))
    assert "TAP wire" in refusal.value.hint
