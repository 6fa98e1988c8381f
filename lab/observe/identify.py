"""Which records are about the same packet.

Contents decide: a packet's innermost addresses, ports, identification and sequence numbers. The
buffer's address bridges what contents cannot (translated addresses, unreadable payload), but only
while the buffer is known to be alive and its IP identification has not changed: the kernel uses an
address again within milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lab.observe.headers import Packet, innermost
from lab.observe.records import Kind, Record
from lab.trace.own import OwnEvent

SAME_PACKET_NS = 500_000_000
"""A retransmission may repeat every number of its original; it comes later than this."""

ROUTE_BEFORE_NS = 20_000_000
"""How long before its buffer exists a sender may have asked for the route."""

_ENDS = frozenset({Kind.FREE, Kind.CONSUME, Kind.DATA_READY})
_NO_CONTENTS = frozenset({Kind.ROUTE, Kind.NAPI_POLL, Kind.GRO_RESULT, Kind.SOCKET_READ})
_LATE = frozenset({Kind.NAPI_POLL, Kind.SOCKET_READ})
_AF_INET = 2


@dataclass(slots=True)
class Journey:
    """All records of one packet, in order of time.

    Attributes:
        number: in order of first sight, from 0.
        packet: as first read; None while unreadable.
        cookie: of its payload, 0 if none was seen.
        own: what probes of the user's own saw of it, each with its place in the order of time.
    """

    number: int
    packet: Packet | None = None
    cookie: int = 0
    records: list[Record] = field(default_factory=list)
    own: list[tuple[int, OwnEvent]] = field(default_factory=list)

    @property
    def last_ns(self) -> int:
        """Time of the last record."""
        return self.records[-1].ns if self.records else 0


class _Identifier:
    def __init__(self) -> None:
        self.journeys: list[Journey] = []
        self.by_buffer: dict[int, Journey] = {}
        self.by_contents: dict[tuple[object, ...], Journey] = {}
        self.waiting: dict[int, list[Record]] = {}

    def take(self, record: Record) -> None:
        if record.kind in _NO_CONTENTS or not record.packet:
            self._without_contents(record)
            return
        packet = innermost(record)
        journey = self._find(record, packet)
        if journey.packet is None:
            journey.packet = packet
        journey.cookie = journey.cookie or record.cookie
        if not journey.records:
            journey.records += self._routes_before(record, packet)
        journey.records.append(record)
        self.by_buffer[record.skb] = journey
        if packet is not None:
            self.by_contents[packet.fingerprint] = journey
        if _ends(record):
            self.by_buffer.pop(record.skb, None)

    def _find(self, record: Record, packet: Packet | None) -> Journey:
        known = self.by_buffer.get(record.skb)
        if packet is None:
            return known or self._new()
        same = self.by_contents.get(packet.fingerprint)
        if same is not None and record.ns - same.last_ns < SAME_PACKET_NS:
            return same
        if known is not None and _translated(known.packet, packet):
            return known
        return self._new()

    def _new(self) -> Journey:
        journey = Journey(len(self.journeys))
        self.journeys.append(journey)
        return journey

    def _without_contents(self, record: Record) -> None:
        journey = self.by_buffer.get(record.skb)
        if journey is not None and record.kind is not Kind.SOCKET_READ:
            journey.records.append(record)
        elif record.kind is Kind.ROUTE:
            # the sender's own question: it belongs to the next packet to that destination
            self.waiting.setdefault(record.hash, []).append(record)
        elif record.kind in _LATE:
            self._of_the_past(record)

    def _of_the_past(self, record: Record) -> None:
        """A poll is reported when it is over, a read comes later: so may be the buffer's life."""
        for journey in reversed(self.journeys):
            if any(seen.skb == record.skb for seen in journey.records):
                journey.records.append(record)
                return

    def _routes_before(self, record: Record, packet: Packet | None) -> list[Record]:
        if packet is None:
            return []
        destination = int.from_bytes(packet.destination.packed, "little")
        waiting = [
            route
            for route in self.waiting.pop(destination, [])
            if record.ns - route.ns < ROUTE_BEFORE_NS
        ]
        here = {route.cpu for route in waiting if route.netns == record.netns}
        # a table without an answer does not say where it was asked
        return [
            replace(route, netns=record.netns)
            for route in waiting
            if route.netns == record.netns or (not route.netns and route.cpu in here)
        ]


def _ends(record: Record) -> bool:
    if record.kind is Kind.DATA_READY:
        return record.arg >> 32 == _AF_INET
    return record.kind in _ENDS


def _translated(before: Packet | None, now: Packet) -> bool:
    """Whether ``now`` may be ``before`` with other addresses or ports."""
    return before is None or (before.protocol, before.ident) == (now.protocol, now.ident)


def journeys(records: Iterable[Record]) -> tuple[Journey, ...]:
    """Return the packets that records are about, in the order in which each was first seen.

    Args:
        records: of any number of packets, in any order.
    """
    identifier = _Identifier()
    for record in sorted(records, key=lambda record: record.ns):
        identifier.take(record)
    return tuple(identifier.journeys)
