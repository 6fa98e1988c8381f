"""Rows made from hand-written frames: numbers, windows, pairs, repeats."""

import struct

import pytest
from segments import CLIENT_IF, OPENING, answer, data, frame, recording, rows, seen

from lab.errors import InputError, UnsupportedError
from lab.wire.frames import Flag, Options, options_of
from lab.wire.hosts import Medium, TwoHosts, is_timer
from lab.wire.judge import Fate
from lab.wire.log import SEGMENT_BYTES, SocketState, decode
from lab.wire.loop import Passage
from lab.wire.record import Decoder, End, flights_over_veth
from lab.wire.recording import flag_names, lateness
from lab.wire.rules import Kind, Way


def test_byte_numbers_begin_at_one_across_the_wrap_of_the_sequence_number() -> None:
    row = rows(data(1001, 20))[-1]
    assert (row.seq, row.last, row.ack, row.length) == (1001, 2000, 1, 1000)


def test_windows_are_scaled_except_on_a_syn() -> None:
    syn, syn_ack, pure = rows(answer(1, 20))
    assert (syn.window, syn_ack.window, pure.window) == (1000, 1000, 4000)


def test_without_scaling_on_both_sides_windows_are_as_written() -> None:
    plain = [seen(Way.TO_SERVER, frame(Way.TO_SERVER, Flag.SYN), 0), OPENING[1], answer(1, 20)]
    assert Decoder(CLIENT_IF).segments(plain)[-1].window == 1000


def test_hosts_and_ends_follow_from_the_device() -> None:
    both = rows(
        data(1, 20), seen(Way.TO_SERVER, frame(Way.TO_SERVER, Flag.ACK, 1, 1, 9), 30, received=True)
    )
    assert [(row.host, row.end, row.way) for row in both[2:]] == [
        ("client", End.SENT, Way.TO_SERVER),
        ("server", End.RECEIVED, Way.TO_SERVER),
    ]


def test_data_that_begins_before_a_byte_already_sent_is_a_retransmission() -> None:
    again = recording(data(1, 20), data(1001, 21), data(1, 40), data(2001, 41)).retransmissions()
    assert [flight.sent.seq for flight in again] == [1]


ANSWERS = {
    "three alike while data is missing: two repeats": ([1001, 1001, 1001], 1000, [1001, 1001]),
    "a different window is an update, not a repeat": ([1001, 1001], None, []),
    "nothing outstanding: no repeat": ([3001, 3001], 1000, []),
}


@pytest.mark.parametrize(("acks", "window", "repeats"), ANSWERS.values(), ids=ANSWERS.keys())
def test_duplicate_acks(acks, window, repeats) -> None:
    said = [answer(ack, 30 + n, window or 1000 + n) for n, ack in enumerate(acks)]
    found = recording(data(1, 20), data(1001, 21), data(2001, 22), *said).duplicate_acks()
    assert [flight.sent.ack for flight in found] == repeats


def test_an_empty_segment_one_byte_back_is_a_probe() -> None:
    probe = seen(Way.TO_SERVER, frame(Way.TO_SERVER, Flag.ACK, 1000, 1), 40)
    assert [f.sent.seq for f in recording(data(1, 20), probe).probes()] == [1000]


ROUNDS = {
    "a round ends when its first segment is acknowledged": (
        [data(1, 20), answer(1001, 30), data(1001, 50), data(2001, 51)],
        (1, 2),
    ),
    "however late its other segments leave": (
        [data(1, 20), data(1001, 29), answer(2001, 40), data(2001, 60)],
        (2, 1),
    ),
    "an old number acknowledges nothing new": (
        [data(1, 20), answer(1, 25), data(1001, 36)],
        (2,),
    ),
    "a silence that only a timer ends": ([data(1, 20), data(1, 250)], (1, 1)),
    "nothing sent": ([], ()),
}


@pytest.mark.parametrize(("rows", "counts"), ROUNDS.values(), ids=ROUNDS.keys())
def test_rounds(rows, counts) -> None:
    assert recording(*rows).rounds() == counts


def test_rounds_can_begin_later() -> None:
    assert recording(data(1, 20), data(1001, 21), data(2001, 22)).rounds(from_byte=1001) == (2,)


WAITS = {
    "all its ticks": (200.0, 200, 0.0, True),
    "never early": (199.0, 200, 0.0, False),
    "late, but not the doubled one": (299.0, 200, 0.0, True),
    "the doubled one": (400.0, 200, 0.0, False),
    "up to where another could be meant": (90.0, 40, 100.0, True),
}


@pytest.mark.parametrize(("waited", "timer", "below", "holds"), WAITS.values(), ids=WAITS.keys())
def test_a_wait_is_a_timer(waited, timer, below, holds) -> None:
    assert is_timer(waited, timer, below_ms=below) is holds


def test_most_in_flight_counts_what_was_sent_before_the_answer_arrived() -> None:
    assert (
        recording(data(1, 20), data(1001, 21), answer(2001, 30), data(2001, 50)).most_in_flight()
        == 2000
    )


def test_the_answer_to_a_segment_is_the_first_that_covers_it() -> None:
    table = recording(data(1, 20), answer(1, 21), answer(1001, 25))
    assert table.answer_ms(table.data()[0]) == pytest.approx(5, abs=0.01)
    assert table.answer_ms(table.flights[-1]) == float("inf")


def test_over_veth_a_dropped_packet_has_no_arrival_and_a_copy_has_two() -> None:
    lost, copied = frame(Way.TO_SERVER, Flag.ACK, 1, 1, 9), frame(Way.TO_SERVER, Flag.ACK, 10, 1, 9)
    observations = [
        *OPENING[:1],
        seen(Way.TO_SERVER, lost, 20),
        seen(Way.TO_SERVER, copied, 21),
        seen(Way.TO_SERVER, OPENING[0].head, 22, received=True),
        seen(Way.TO_SERVER, lost, 22, received=True, fate=1),
        seen(Way.TO_SERVER, copied, 23, received=True, fate=2),
        seen(Way.TO_SERVER, copied, 24, received=True, fate=3),
    ]
    flights = flights_over_veth(Decoder(CLIENT_IF).segments(observations), observations)
    assert [(f.fate, len(f.arrived_ns)) for f in flights] == [
        (Fate.DELIVERED, 1),
        (Fate.DROPPED, 0),
        (Fate.DUPLICATED, 2),
    ]


OPTIONS = {
    "none": (b"", Options()),
    "MSS and scaling": (b"\x02\x04\x03\xe8\x01\x03\x03\x07", Options(1000, 7)),
    "a SACK block": (b"\x05\x0a" + struct.pack("!II", 5, 9), Options(sack=((5, 9),))),
    "timestamps": (b"\x08\x0a" + struct.pack("!II", 1, 2), Options(timestamp=(1, 2))),
    "permission, then the end, then rubbish": (b"\x04\x02\x00\xff", Options(sack_permitted=True)),
    "a length that lies": (b"\x02\x40\x01", Options()),
    "a length of zero": (b"\x03\x00\x07", Options()),
}


@pytest.mark.parametrize(("raw", "meaning"), OPTIONS.values(), ids=OPTIONS.keys())
def test_options(raw, meaning) -> None:
    assert options_of(raw) == meaning


def test_the_log_is_decoded_as_the_program_writes_it() -> None:
    raw = struct.pack("<QQIIBBBB10I", 5, 6, 60, 3, 1, 2, 4, 1, *range(10, 20)) + b"abcdXX"
    item = decode(raw.ljust(SEGMENT_BYTES, b"\0"))
    assert (item.time_ns, item.cookie, item.frame_bytes, item.ifindex) == (5, 6, 60, 3)
    assert (item.received, item.fate, item.head) == (True, 2, b"abcd")
    assert item.state == SocketState(
        cwnd=10, ssthresh=11, packets_out=12, retrans_out=13, sacked_out=14, lost_out=15,
        srtt_us=16, snd_una=17, snd_nxt=18, rcv_nxt=19,
    )  # fmt: skip
    assert item.state.in_flight == 12 - 14 - 15 + 13


def test_lateness_of_nothing_is_nothing_and_of_many_is_ranked() -> None:
    assert lateness(()).packets == 0
    passages = [
        Passage(Way.TO_SERVER, 0, Fate.DELIVERED, 60, b"", ((0, late * 1000),))
        for late in range(100)
    ]
    ranked = lateness(passages)
    assert (ranked.packets, ranked.p50_us, ranked.p99_us, ranked.max_us) == (100, 50, 99, 99)


def test_flags_are_named_as_in_diagrams() -> None:
    assert flag_names(Flag.ACK | Flag.SYN | Flag.PSH) == "SYN|ACK"
    assert recording().flags() == ("> SYN", "< SYN|ACK")


def test_kinds_of_the_opening() -> None:
    assert [row.kind for row in rows()] == [Kind.SYN, Kind.SYN_ACK]


BAD_HOSTS = {
    "a segment too small": ({"mss_bytes": 40}, InputError, "between 88 and 1460"),
    "time running backwards": ({"delay_ms": -1}, InputError, "at least 0"),
    "no initial window": ({"initial_window": 0}, InputError, "at least 1"),
    "a cable that delays": ({"medium": Medium.VETH, "delay_ms": 1}, UnsupportedError, "WIRE"),
}


@pytest.mark.parametrize(("wrong", "kind", "hint"), BAD_HOSTS.values(), ids=BAD_HOSTS.keys())
def test_hosts_that_make_no_sense_are_refused(wrong, kind, hint) -> None:
    with pytest.raises(kind) as refusal:
        TwoHosts(**wrong)
    assert hint in refusal.value.hint
