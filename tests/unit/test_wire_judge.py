"""The fate of hand-made packets under each rule, with times chosen by the test."""

import struct

import pytest

from lab.wire.judge import Fate, Judge
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
    datagram,
    everything,
    fin,
    syn,
    syn_ack,
    window_update,
)

MS = 1_000_000
CLIENT, SERVER = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
ISN = 0xFFFFF000  # close to the wrap, so that byte numbers cross it


def tcp(flags: int, length: int = 0, *, seq: int = 1, acked: int = 1, window: int = 500) -> bytes:
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + length, 1, 0, 64, 6, 0, CLIENT, SERVER)
    head = struct.pack(
        "!HHIIBBHHH", 4000, 80, (ISN + seq) & 0xFFFFFFFF, acked, 0x50, flags, window, 0, 0
    )
    return bytes(12) + b"\x08\x00" + ip + head + b"x" * length


def udp(length: int) -> bytes:
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + length, 1, 0, 64, 17, 0, CLIENT, SERVER)
    return (
        bytes(12) + b"\x08\x00" + ip + struct.pack("!HHHH", 4000, 53, 8 + length, 0) + bytes(length)
    )


SYN, SYN_ACK, ACK, FIN = 2, 18, 16, 17


def segment(number: int) -> bytes:
    return tcp(ACK, 1000, seq=1 + (number - 1) * 1000)


def fates(judge: Judge, frames, way: Way = Way.TO_SERVER) -> list[Fate]:
    return [judge.judge(way, frame, n * MS)[0] for n, frame in enumerate(frames)]


def arrivals(judge: Judge, frames, way: Way = Way.TO_SERVER) -> list[int]:
    """Numbers of the packets in the order they would be written, one packet per ms."""
    due = []
    for n, frame in enumerate(frames):
        due += judge.judge(way, frame, n * MS)[1]
    return [delivery.packet for delivery in sorted(due, key=lambda d: d.due_ns)]


CHOSEN = {
    "data #2 counts data only": (Drop(data(2)), [tcp(SYN), segment(1), tcp(ACK), segment(2)], [3]),
    "the retransmission is the next ordinal": (Drop(data(1, 2)), [segment(1)] * 3, [0, 1]),
    "by first byte, across the wrap": (
        Drop(data(first_byte=5001)),
        [tcp(SYN, seq=0), *map(segment, (5, 6, 7)), segment(6)],
        [2, 4],
    ),
    "by first byte and ordinal: the retransmission survives": (
        Drop(data(1, first_byte=2001)),
        [tcp(SYN, seq=0), *map(segment, (1, 2, 3, 4, 3))],
        [3],
    ),
    "a byte number needs a SYN to count from": (Drop(data(first_byte=1)), [segment(1)], []),
    "pure ACKs": (Drop(ack(2, way=Way.TO_SERVER)), [tcp(ACK), segment(1), tcp(ACK)], [2]),
    "the SYN, not the SYN-ACK": (Drop(syn(1)), [tcp(SYN_ACK), tcp(SYN), tcp(SYN)], [1]),
    "a FIN that carries data": (Drop(fin(1)), [segment(1), tcp(FIN, 10)], [1]),
    "datagrams": (Drop(datagram(2)), [udp(5), segment(1), udp(5)], [2]),
    "long packets": (
        Drop(everything(Way.TO_SERVER, longer_than_bytes=1000)),
        [tcp(ACK, 961), tcp(ACK, 960)],
        [0],
    ),
    "the other direction is left alone": (Drop(syn_ack(1)), [tcp(SYN_ACK)], []),
    "a window update repeats the ACK number with more window": (
        Drop(window_update(1, way=Way.TO_SERVER)),
        [tcp(ACK, window=0), tcp(ACK, acked=2, window=9), tcp(ACK, acked=2, window=10)],
        [2],
    ),
}


@pytest.mark.parametrize(("rule", "frames", "lost"), CHOSEN.values(), ids=CHOSEN.keys())
def test_packets_are_chosen(rule, frames, lost: list[int]) -> None:
    seen = fates(Judge(Script((rule,))), frames)
    assert [n for n, fate in enumerate(seen) if fate is Fate.DROPPED] == lost


ORDERS = {
    "nothing: first in, first out": ((), [0, 1, 2, 3, 4]),
    "a delay of 2.5 ms lets two pass": ((Delay(data(2), 2.5),), [0, 2, 3, 1, 4]),
    "behind two": ((Reorder(data(2), behind=2),), [0, 2, 3, 1, 4]),
    "two held packets keep their own order": (
        (Reorder(data(1), behind=2), Reorder(data(2), behind=1)),
        [2, 1, 3, 0, 4],
    ),
    "a duplicate arrives twice": ((Duplicate(data(3)),), [0, 1, 2, 2, 3, 4]),
    "a dropped one does not release": ((Reorder(data(1)), Drop(data(2))), [2, 0, 3, 4]),
}


@pytest.mark.parametrize(("rules", "order"), ORDERS.values(), ids=ORDERS.keys())
def test_order_of_arrival(rules, order: list[int]) -> None:
    assert arrivals(Judge(Script(rules), delay_ns=MS // 2), map(segment, range(1, 6))) == order


def test_the_wires_own_delay_is_added_to_every_packet() -> None:
    _, (delivery,) = Judge(Script(), delay_ns=20 * MS).judge(Way.TO_SERVER, segment(1), 7 * MS)
    assert delivery.due_ns == 27 * MS


def test_a_held_packet_leaves_at_its_deadline_when_nobody_follows() -> None:
    judge = Judge(Script((Reorder(data(1), behind=1, at_most_ms=30),)))
    assert judge.judge(Way.TO_SERVER, segment(1), 0) == (Fate.REORDERED, [])
    assert judge.next_deadline_ns() == 30 * MS
    assert judge.overdue(30 * MS - 1) == []
    assert [delivery.packet for delivery in judge.overdue(30 * MS)] == [0]
    assert judge.next_deadline_ns() is None


def test_corruption_flips_exactly_one_bit() -> None:
    fate, (delivery,) = Judge(Script((Corrupt(data(1)),))).judge(Way.TO_SERVER, segment(1), 0)
    flipped = int.from_bytes(delivery.frame, "big") ^ int.from_bytes(segment(1), "big")
    assert fate is Fate.CORRUPTED
    assert flipped.bit_count() == 1


def test_a_rate_spaces_packets_and_its_queue_drops_the_tail() -> None:
    frame = segment(1)
    millisecond_each = len(frame) * 8 / 1000
    rate = Rate(way=Way.TO_SERVER, rate_mbit=millisecond_each, queue_packets=2)
    judge = Judge(Script((rate,)))
    outcome = [judge.judge(Way.TO_SERVER, frame, 0) for _ in range(5)]
    assert [due[0].due_ns if due else None for _, due in outcome] == [
        MS,
        2 * MS,
        3 * MS,
        None,
        None,
    ]
    assert [fate.lost for fate, _ in outcome] == [False, False, False, True, True]
    assert judge.judge(Way.TO_SERVER, frame, MS)[1][0].due_ns == 4 * MS


def test_a_rule_is_unmet_until_its_packet_comes() -> None:
    judge = Judge(Script((Drop(data(2)), Drop(syn(1)))))
    judge.judge(Way.TO_SERVER, segment(1), 0)
    assert judge.unmet() == (
        "drop data #2 client→server: 1 such packet came",
        "drop SYN #1 client→server: 0 such packets came",
    )
    fates(judge, [segment(2), tcp(SYN)])
    assert judge.unmet() == ()


@pytest.mark.parametrize(
    "frame",
    [b"", b"\0" * 13, bytes(12) + b"\x08\x06" + bytes(28), tcp(SYN)[:40]],
    ids=["empty", "shorter than Ethernet", "ARP", "TCP header cut"],
)
def test_a_frame_that_is_no_whole_segment_passes_unharmed(frame: bytes) -> None:
    fate, (delivery,) = Judge(Script((Drop(data()), Drop(syn())))).judge(Way.TO_SERVER, frame, 0)
    assert (fate, delivery.frame) == (Fate.DELIVERED, frame)
