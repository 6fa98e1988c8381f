"""What an experiment asks of the table: who sent what, what was lost, what came again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.wire.frames import Flag
from lab.wire.hosts import Counters
from lab.wire.loop import Passage
from lab.wire.record import Flight, Segment
from lab.wire.rules import Kind, Script, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """How much later than due the wire wrote, in microseconds; zero packets leave zeros."""

    packets: int
    p50_us: float
    p99_us: float
    max_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Everything that happened between two hosts.

    Attributes:
        segments: one row per packet and end, in the kernel's order.
        flights: one per packet sent, in the order of sending.
        passages: the TAP wire's journal; empty over veth.
        script: the rules in force at the end.
        unmet: rules whose packet never came, as sentences.
        counters: of the client and of the server.
        mss_bytes: payload of a full-size segment.
        delay_ms: one way.
    """

    segments: tuple[Segment, ...]
    flights: tuple[Flight, ...]
    passages: tuple[Passage, ...]
    script: Script
    unmet: tuple[str, ...]
    counters: tuple[Counters, Counters]
    mss_bytes: int
    delay_ms: float

    @property
    def start_ns(self) -> int:
        """Monotonic time of the first packet; pictures count from it."""
        return self.segments[0].time_ns if self.segments else 0

    def at_ms(self, time_ns: int) -> float:
        """Milliseconds since the first packet."""
        return (time_ns - self.start_ns) / 1e6

    def of(self, kind: Kind, way: Way) -> tuple[Flight, ...]:
        """Return the packets of one kind and direction in the order of sending."""
        return tuple(f for f in self.flights if f.sent.kind is kind and f.sent.way is way)

    def data(self, way: Way = Way.TO_SERVER) -> tuple[Flight, ...]:
        """Return the segments with payload."""
        return self.of(Kind.DATA, way)

    def acks(self, way: Way = Way.TO_CLIENT) -> tuple[Flight, ...]:
        """Return the segments that only acknowledge."""
        return self.of(Kind.PURE_ACK, way)

    def lost(self) -> tuple[Flight, ...]:
        """Return the packets that never arrived."""
        return tuple(flight for flight in self.flights if flight.lost)

    def retransmissions(self, way: Way = Way.TO_SERVER) -> tuple[Flight, ...]:
        """Return the data sent again: it begins before a byte already sent in its connection."""
        furthest: dict[int, int] = {}
        again = []
        for flight in self.data(way):
            sent = flight.sent
            if sent.seq <= furthest.get(sent.port, 0):
                again.append(flight)
            furthest[sent.port] = max(furthest.get(sent.port, 0), sent.last)
        return tuple(again)

    def duplicate_acks(self, way: Way = Way.TO_CLIENT) -> tuple[Flight, ...]:
        """Return pure ACKs that repeat number and window of the last ACK while data is missing."""
        last: dict[int, tuple[int, int]] = {}
        repeats = []
        for flight in self.flights:
            sent = flight.sent
            if sent.way is not way or not sent.flags & Flag.ACK:
                continue
            said = (sent.ack, sent.window)
            outstanding = self._outstanding(sent)
            if sent.kind is Kind.PURE_ACK and last.get(sent.port) == said and outstanding:
                repeats.append(flight)
            last[sent.port] = said
        return tuple(repeats)

    def flags(self) -> tuple[str, ...]:
        """Return direction and flags of each TCP packet, such as ``> SYN`` and ``< SYN|ACK``."""
        return tuple(
            f"{'>' if flight.sent.way is Way.TO_SERVER else '<'} {flag_names(flight.sent.flags)}"
            for flight in self.flights
            if flight.sent.flags
        )

    def lateness(self) -> Lateness:
        """Return how punctual the TAP wire was."""
        late = sorted(
            (wrote - due) / 1e3 for passage in self.passages for due, wrote in passage.written
        )
        if not late:
            return Lateness(packets=0, p50_us=0.0, p99_us=0.0, max_us=0.0)
        return Lateness(
            packets=len(late),
            p50_us=late[len(late) // 2],
            p99_us=late[min(len(late) - 1, len(late) * 99 // 100)],
            max_us=late[-1],
        )

    def _outstanding(self, acknowledging: Segment) -> bool:
        # data beyond the acknowledged byte had left the other side before this ACK was sent
        return any(
            row.sent.way is acknowledging.way.back
            and row.sent.port == acknowledging.port
            and row.sent.kind is Kind.DATA
            and row.sent.last >= acknowledging.ack
            for row in self._before(acknowledging.time_ns)
        )

    def _before(self, time_ns: int) -> Iterable[Flight]:
        return (flight for flight in self.flights if flight.sent.time_ns < time_ns)


def flag_names(flags: Flag) -> str:
    """Return flags as ``SYN|ACK``, in the order of RFC diagrams, PSH left out."""
    order = (Flag.SYN, Flag.FIN, Flag.RST, Flag.ACK, Flag.ECE, Flag.CWR)
    return "|".join(flag.name or "" for flag in order if flags & flag)
