"""What happens to each packet of a wire: pure, with the time as a parameter.

The same packets in the same order at the same times give the same deliveries, so a script can be
tested without a kernel, and twenty runs of one experiment differ only in microseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from lab.wire.frames import TCP, Flag, Header, distance, kind_of, parse
from lab.wire.rules import (
    Corrupt,
    Delay,
    Drop,
    Duplicate,
    Kind,
    Match,
    PacketRule,
    Rate,
    Reorder,
    Script,
    Way,
    describe,
)


class Fate(Enum):
    """What the wire did to a packet."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    QUEUE_FULL = "dropped, queue full"
    DELAYED = "delayed"
    REORDERED = "reordered"
    DUPLICATED = "duplicated"
    CORRUPTED = "corrupted"

    @property
    def lost(self) -> bool:
        """Whether the packet never arrives."""
        return self in (Fate.DROPPED, Fate.QUEUE_FULL)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Bytes to hand to the receiver at a time on the monotonic clock.

    Attributes:
        due_ns: when.
        way: towards whom.
        packet: number of the packet in the order the wire saw them, from 0.
        frame: the bytes to write.
    """

    due_ns: int
    way: Way
    packet: int
    frame: bytes


@dataclass(slots=True)
class _Counter:
    """How often a rule's predicate was satisfied, and how often the rule acted."""

    seen: int = 0
    acted: int = 0


@dataclass(slots=True)
class _Held:
    """A packet waiting for the ones it goes behind."""

    packet: int
    frame: bytes
    behind: int
    latest_ns: int


@dataclass(slots=True)
class _Direction:
    """What the judge remembers of one direction."""

    first_seq: dict[tuple[int, int], int] = field(default_factory=dict)
    last_ack: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    busy_until_ns: int = 0
    waiting: deque[int] = field(default_factory=deque)
    held: list[_Held] = field(default_factory=list)


class Judge:
    """Decides the fate of each packet by a script.

    Attributes:
        delay_ns: the wire's own one-way delay.
        packets: how many packets were judged.
    """

    def __init__(self, script: Script, delay_ns: int = 0) -> None:
        self.delay_ns = delay_ns
        self.packets = 0
        self._sides = (_Direction(), _Direction())
        self.change(script)

    def change(self, script: Script) -> None:
        """Go on with other rules; their ordinals count from now."""
        self._rules = [(rule, _Counter()) for rule in script.packet_rules]
        self._rates: dict[Way, Rate] = {rate.way: rate for rate in script.rates}

    def unmet(self) -> tuple[str, ...]:
        """Describe the rules that named a packet which has not come (yet)."""
        missing = []
        for rule, counter in self._rules:
            absent = [n for n in rule.match.nth if n > counter.seen]
            if absent or (not rule.match.nth and not counter.acted):
                missing.append(
                    f"{describe(rule)}: {counter.seen} such packet{'s' * (counter.seen != 1)} came"
                )
        return tuple(missing)

    def judge(self, way: Way, frame: bytes, now_ns: int) -> tuple[Fate, list[Delivery]]:
        """Return what happens to a packet, and whatever is to be delivered because of it."""
        number = self.packets
        self.packets += 1
        side = self._sides[way]
        header = parse(frame)
        acting = [rule for rule, counter in self._rules if self._chosen(rule, counter, way, header)]
        # after the choice: a window update is judged by what came before it
        self._remember(side, header)
        fate, deliveries = self._apply(acting, way, number, frame, now_ns)
        if fate is not Fate.REORDERED and not fate.lost:
            last = max(delivery.due_ns for delivery in deliveries)
            deliveries += self._released(side, way, last)
        return fate, deliveries

    def overdue(self, now_ns: int) -> list[Delivery]:
        """Return held packets whose followers did not come in time."""
        late = []
        for way in Way:
            side = self._sides[way]
            for held in [held for held in side.held if held.latest_ns <= now_ns]:
                side.held.remove(held)
                late.append(Delivery(now_ns, way, held.packet, held.frame))
        return late

    def next_deadline_ns(self) -> int | None:
        """When :meth:`overdue` has something to say, or None."""
        return min((held.latest_ns for side in self._sides for held in side.held), default=None)

    def _apply(
        self, acting: list[PacketRule], way: Way, number: int, frame: bytes, now_ns: int
    ) -> tuple[Fate, list[Delivery]]:
        if any(isinstance(rule, Drop) for rule in acting):
            return Fate.DROPPED, []
        # what a rule drops does not occupy the link
        leaves_ns = self._through_queue(way, len(frame), now_ns)
        if leaves_ns is None:
            return Fate.QUEUE_FULL, []
        due_ns, copies, fate = leaves_ns + self.delay_ns, 1, Fate.DELIVERED
        for rule in acting:
            if isinstance(rule, Reorder):
                latest = due_ns + round(rule.at_most_ms * 1e6)
                self._sides[way].held.append(_Held(number, frame, rule.behind, latest))
                return Fate.REORDERED, []
            if isinstance(rule, Delay):
                due_ns += round(rule.delay_ms * 1e6)
                fate = Fate.DELAYED
            elif isinstance(rule, Duplicate):
                copies += rule.copies
                fate = Fate.DUPLICATED
            elif isinstance(rule, Corrupt):
                # the last byte is payload or the end of the header: addresses stay, so it reaches
                # the right socket
                frame = frame[:-1] + bytes([frame[-1] ^ 1])
                fate = Fate.CORRUPTED
        return fate, [Delivery(due_ns, way, number, frame)] * copies

    def _through_queue(self, way: Way, frame_bytes: int, now_ns: int) -> int | None:
        rate = self._rates.get(way)
        if rate is None:
            return now_ns
        side = self._sides[way]
        while side.waiting and side.waiting[0] <= now_ns:
            side.waiting.popleft()
        # the first of them is being sent and does not wait
        if len(side.waiting) > rate.queue_packets:
            return None
        start = max(now_ns, side.busy_until_ns)
        side.busy_until_ns = start + rate.serialisation_ns(frame_bytes)
        side.waiting.append(side.busy_until_ns)
        return side.busy_until_ns

    @staticmethod
    def _released(side: _Direction, way: Way, due_ns: int) -> Iterator[Delivery]:
        for held in list(side.held):
            held.behind -= 1
            if held.behind == 0:
                side.held.remove(held)
                yield Delivery(due_ns, way, held.packet, held.frame)

    def _chosen(
        self,
        rule: PacketRule,
        counter: _Counter,
        way: Way,
        header: Header | None,
    ) -> bool:
        if not self._satisfies(rule.match, way, header):
            return False
        counter.seen += 1
        chosen = not rule.match.nth or counter.seen in rule.match.nth
        counter.acted += chosen
        return chosen

    def _satisfies(self, match: Match, way: Way, header: Header | None) -> bool:
        if match.way is not way:
            return False
        if match.longer_than_bytes and (
            header is None or header.ip_bytes <= match.longer_than_bytes
        ):
            return False
        kind = kind_of(header)
        if match.kind is Kind.WINDOW_UPDATE:
            return header is not None and kind is Kind.PURE_ACK and self._opens_window(way, header)
        # a FIN may ride on data or on an ACK, which kind_of names first
        if match.kind is Kind.FIN:
            return header is not None and header.protocol == TCP and bool(header.flags & Flag.FIN)
        if match.kind is not Kind.ANY and match.kind is not kind:
            return False
        if match.first_byte is None or header is None:
            return True
        start = self._sides[way].first_seq.get((header.source_port, header.destination_port))
        return start is not None and distance(start, header.seq) == match.first_byte

    def _opens_window(self, way: Way, header: Header) -> bool:
        ports = (header.source_port, header.destination_port)
        ack, window = self._sides[way].last_ack.get(ports, (-1, 0))
        return ack == header.ack and header.window > window

    @staticmethod
    def _remember(side: _Direction, header: Header | None) -> None:
        if header is None or header.protocol != TCP:
            return
        ports = (header.source_port, header.destination_port)
        if header.flags & Flag.SYN:
            side.first_seq[ports] = header.seq
        if header.flags & Flag.ACK:
            side.last_ack[ports] = (header.ack, header.window)
