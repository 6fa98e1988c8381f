"""What an experiment asks of the table: who sent what, what was lost, what came again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from lab.wire.events import CongestionState, TcpEvent, TcpState, What
from lab.wire.frames import Flag
from lab.wire.hosts import Counters
from lab.wire.loop import Passage
from lab.wire.record import Flight, Segment
from lab.wire.rules import Kind, Script, Way

_TIMER_ROUNDS = 4
"""A silence of so many round trips is ended by a timer, not by an acknowledgement."""


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
        events: what TCP itself reported.
        script: the rules in force at the end.
        unmet: rules whose packet never came, as sentences.
        counters: of the client and of the server.
        mss_bytes: payload of a full-size segment.
        delay_ms: one way.
        begun_ns: where time 0 is; the first packet if 0.
    """

    segments: tuple[Segment, ...]
    flights: tuple[Flight, ...]
    passages: tuple[Passage, ...]
    events: tuple[TcpEvent, ...]
    script: Script
    unmet: tuple[str, ...]
    counters: tuple[Counters, Counters]
    mss_bytes: int
    delay_ms: float
    begun_ns: int = 0

    @property
    def client(self) -> Counters:
        """The client's kernel counters."""
        return self.counters[0]

    @property
    def server(self) -> Counters:
        """The server's kernel counters."""
        return self.counters[1]

    @property
    def start_ns(self) -> int:
        """Monotonic time of the first packet; pictures count from it."""
        if self.begun_ns:
            return self.begun_ns
        return self.segments[0].time_ns if self.segments else 0

    def at_ms(self, time_ns: int) -> float:
        """Milliseconds since the first packet."""
        return (time_ns - self.start_ns) / 1e6

    def connection(self, port: int) -> Recording:
        """Return what belongs to the connection of one client port; times stay as they are."""
        return replace(
            self,
            segments=tuple(row for row in self.segments if row.port == port),
            flights=tuple(flight for flight in self.flights if flight.sent.port == port),
            events=tuple(event for event in self.events if event.port == port),
            begun_ns=self.start_ns,
        )

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

    def probes(self, way: Way = Way.TO_SERVER) -> tuple[Flight, ...]:
        """Return the empty segments that begin before a byte already sent: they ask for an ACK."""
        furthest: dict[int, int] = {}
        asking = []
        for flight in self.flights:
            sent = flight.sent
            if sent.way is not way:
                continue
            # keepalive and window probes send an old number on purpose: whoever hears it has to
            # answer
            if sent.kind is Kind.PURE_ACK and sent.seq < furthest.get(sent.port, 0):
                asking.append(flight)
            furthest[sent.port] = max(furthest.get(sent.port, 0), sent.next_byte)
        return tuple(asking)

    def answer_ms(self, flight: Flight) -> float:
        """Return how long after its arrival a segment was acknowledged, infinite if never."""
        arrived_ns = min(flight.arrived_ns, default=0)
        for other in self.flights:
            answer = other.sent
            if (
                answer.way is flight.sent.way.back
                and answer.port == flight.sent.port
                and answer.time_ns > arrived_ns > 0
                and answer.ack >= flight.sent.next_byte
            ):
                return (answer.time_ns - arrived_ns) / 1e6
        return float("inf")

    def duplicate_acks(self, way: Way = Way.TO_CLIENT) -> tuple[Flight, ...]:
        """Return pure ACKs that repeat number and window of the last ACK while data is missing."""
        last: dict[int, tuple[int, int]] = {}
        repeats = []
        for flight in self.flights:
            sent = flight.sent
            if sent.way is not way or not sent.flags & Flag.ACK:
                continue
            # RFC 5681, 2: same number, same window, no data, while something is outstanding
            said = (sent.ack, sent.window)
            outstanding = self._outstanding(sent)
            if sent.kind is Kind.PURE_ACK and last.get(sent.port) == said and outstanding:
                repeats.append(flight)
            last[sent.port] = said
        return tuple(repeats)

    def congestion_states(self, *, at_client: bool = True) -> tuple[CongestionState, ...]:
        """Return the congestion states one host's sockets went through, in order."""
        return tuple(
            CongestionState(event.after)
            for event in self.events
            if event.what is What.CONGESTION and event.at_client is at_client
        )

    def entered(self, state: str, *, at_client: bool = True) -> tuple[TcpEvent, ...]:
        """Return the events at which a host's sockets entered a congestion state by its name."""
        wanted = CongestionState[state]
        return tuple(
            event
            for event in self.events
            if event.what is What.CONGESTION
            and event.at_client is at_client
            and event.after == wanted
        )

    def growth_per_round(self, begin: TcpEvent, end: TcpEvent) -> float:
        """Return how many segments cwnd gained per round trip, while Open between two events."""
        opened = [
            event.time_ns
            for event in self.entered("OPEN", at_client=begin.at_client)
            if begin.time_ns < event.time_ns < end.time_ns
        ]
        inside = [
            event
            for event in self.events
            if event.what is What.PROBE
            and event.at_client is begin.at_client
            and (opened[0] if opened else end.time_ns) <= event.time_ns < end.time_ns
        ]
        if len(inside) < 2:
            return 0.0
        rounds = sum(
            (after.time_ns - before.time_ns) / 1e3 / before.srtt_us
            for before, after in pairwise(inside)
        )
        return (inside[-1].cwnd - inside[0].cwnd) / rounds

    def tcp_states(self, *, at_client: bool = True) -> tuple[TcpState, ...]:
        """Return the connection states one host's sockets entered, in order."""
        return tuple(
            TcpState(event.after)
            for event in self.events
            if event.what is What.STATE and event.at_client is at_client
        )

    def most_in_flight(self, way: Way = Way.TO_SERVER) -> int:
        """Return the most bytes that were sent and not yet acknowledged to their sender."""
        moments: list[tuple[int, int, int]] = []
        for flight in self.flights:
            if flight.sent.way is way:
                moments.append((flight.sent.time_ns, flight.sent.last, 0))
            else:
                moments += [(at, 0, flight.sent.ack - 1) for at in flight.arrived_ns]
        sent = acknowledged = most = 0
        # by arrival: what is on its way back still counts as unacknowledged for the sender
        for _, last, ack in sorted(moments):
            sent, acknowledged = max(sent, last), max(acknowledged, ack)
            most = max(most, sent - acknowledged)
        return most

    def rounds(self, way: Way = Way.TO_SERVER, *, from_byte: int = 1) -> tuple[int, ...]:
        """Return how many data segments left in each round trip, from a byte number on.

        A round ends when its first segment is acknowledged, whatever the clock says; or, if it
        never is, with a silence that only a timer ends.
        """
        counts: list[int] = []
        first = before_ns = acked = 0
        answers = sorted(
            (at, flight.sent.ack)
            for flight in self.flights
            for at in flight.arrived_ns
            if flight.sent.way is way.back and flight.sent.flags & Flag.ACK
        )
        for flight in self.data(way):
            sent = flight.sent
            if sent.seq < from_byte:
                continue
            while answers and answers[0][0] < sent.time_ns:
                acked = max(acked, answers.pop(0)[1])
            # 2e6: nanoseconds of a round trip, the delay being one way
            silent = sent.time_ns - before_ns > _TIMER_ROUNDS * 2e6 * self.delay_ms
            if not counts or acked > first or silent:
                counts.append(0)
                first = sent.seq
            counts[-1] += 1
            before_ns = sent.time_ns
        return tuple(counts)

    def ladder(self, way: Way) -> tuple[str, ...]:
        """Return what one side sent, in order and without times: what a run repeats exactly."""
        return tuple(
            f"{flag_names(f.sent.flags) or f.sent.kind.value} {f.sent.seq}+{f.sent.length} "
            f"ack {f.sent.ack} {f.fate.value}"
            for f in self.flights
            if f.sent.way is way
        )

    def flags(self) -> tuple[str, ...]:
        """Return direction and flags of each TCP packet, such as ``> SYN`` and ``< SYN|ACK``."""
        return tuple(
            f"{'>' if flight.sent.way is Way.TO_SERVER else '<'} {flag_names(flight.sent.flags)}"
            for flight in self.flights
            if flight.sent.flags
        )

    def lateness(self) -> Lateness:
        """Return how punctual the TAP wire was."""
        return lateness(self.passages)

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


def lateness(passages: Iterable[Passage]) -> Lateness:
    """Return how much later than due a TAP wire wrote its packets."""
    late = sorted((wrote - due) / 1e3 for passage in passages for due, wrote in passage.written)
    if not late:
        return Lateness(packets=0, p50_us=0.0, p99_us=0.0, max_us=0.0)
    return Lateness(
        packets=len(late),
        p50_us=late[len(late) // 2],
        p99_us=late[min(len(late) - 1, len(late) * 99 // 100)],
        max_us=late[-1],
    )


def flag_names(flags: Flag) -> str:
    """Return flags as ``SYN|ACK``, in the order of RFC diagrams, PSH left out."""
    order = (Flag.SYN, Flag.FIN, Flag.RST, Flag.ACK, Flag.ECE, Flag.CWR)
    return "|".join(flag.name or "" for flag in order if flags & flag)
