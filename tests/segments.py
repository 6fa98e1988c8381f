"""Recordings made by hand: frames, observations and tables for tests without a kernel."""

import struct

from lab.wire.frames import Flag
from lab.wire.hosts import Counters
from lab.wire.judge import Fate
from lab.wire.log import Observation
from lab.wire.loop import Passage
from lab.wire.record import Decoder, flights_over_wire
from lab.wire.recording import Recording
from lab.wire.rules import Script, Way

CLIENT_IF, SERVER_IF = 2, 3
ISN = {Way.TO_SERVER: 0xFFFFFF00, Way.TO_CLIENT: 7000}
ADDRESS = {Way.TO_SERVER: bytes([10, 9, 0, 1]), Way.TO_CLIENT: bytes([10, 9, 0, 2])}
PORTS = {Way.TO_SERVER: (40000, 5000), Way.TO_CLIENT: (5000, 40000)}


def frame(way: Way, flags: Flag, seq=0, ack=0, length=0, window=1000, options=b"") -> bytes:
    total = 40 + len(options) + length
    source, destination = ADDRESS[way], ADDRESS[way.back]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 1, 0, 64, 6, 0, source, destination)
    offset = (5 + len(options) // 4) << 4
    number = (ISN[way] + seq) & 0xFFFFFFFF
    answer = (ISN[way.back] + ack) & 0xFFFFFFFF if flags & Flag.ACK else 0
    head = struct.pack("!HHIIBBHHH", *PORTS[way], number, answer, offset, flags, window, 0, 0)
    return bytes(12) + b"\x08\x00" + ip + head + options + bytes(length)


def seen(way: Way, data: bytes, at_ms: float, *, received=False, fate=0) -> Observation:
    at_client = (way is Way.TO_SERVER) is not received
    return Observation(
        time_ns=int(at_ms * 1e6) + 1,
        cookie=0,
        frame_bytes=len(data),
        ifindex=CLIENT_IF if at_client else SERVER_IF,
        received=received,
        fate=fate,
        head=data[:188],
        state=None,
    )


SHIFT = b"\x03\x03\x02\x01"
OPENING = [
    seen(Way.TO_SERVER, frame(Way.TO_SERVER, Flag.SYN, options=SHIFT), 0),
    seen(Way.TO_CLIENT, frame(Way.TO_CLIENT, Flag.SYN | Flag.ACK, ack=1, options=SHIFT), 10),
]


def rows(*more: Observation):
    return Decoder(CLIENT_IF).segments([*OPENING, *more])


def recording(*more: Observation) -> Recording:
    segments = rows(*more)
    passages = [
        Passage(row.way, row.time_ns, Fate.DELIVERED, 0, b"", ((row.time_ns, row.time_ns + 5),))
        for row in segments
    ]
    return Recording(
        segments=segments,
        flights=flights_over_wire(segments, passages),
        passages=tuple(passages),
        events=(),
        script=Script(),
        unmet=(),
        counters=(Counters(()), Counters(())),
        mss_bytes=1000,
        delay_ms=10,
    )


def data(seq: int, at_ms: float) -> Observation:
    return seen(Way.TO_SERVER, frame(Way.TO_SERVER, Flag.ACK, seq, 1, 1000), at_ms)


def answer(ack: int, at_ms: float, window: int = 1000) -> Observation:
    return seen(Way.TO_CLIENT, frame(Way.TO_CLIENT, Flag.ACK, 1, ack, window=window), at_ms)
