"""Which records are about the same packet, and how packets come from each other.

Contents decide: a packet's innermost addresses, ports, identification, length and sequence numbers,
and as much of its payload as was captured. The buffer's address bridges what contents cannot
(translated addresses), but only while the buffer is known to be alive and what cannot change has
not: the kernel uses an address again within milliseconds. An encrypted packet is known by the
number that IPsec gave it. A join that its fingerprint does not confirm is not made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lab.observe.headers import ESP, TCP, UDP, Packet, innermost, outermost, secret_of
from lab.observe.pieces import cut_from, follows, grown_to
from lab.observe.records import Config, Kind, Record
from lab.trace import Relation, Tie
from lab.trace.own import OwnEvent

SAME_PACKET_NS = 500_000_000
"""A retransmission may repeat every number of its original; it comes later than this."""

ROUTE_BEFORE_NS = 20_000_000
"""How long before its buffer exists a sender may have asked for the route."""

SPLIT_NS = 20_000_000
"""How long after its last sight a large packet may still be cut into segments."""

APPENDED_NS = 200_000
"""How long TCP takes at most from looking at a segment to waking the reader for it."""

_CANDIDATES_ON_CPU = 64
"""How many packets back one may be that still waits for its neighbour."""

ENTRY_BEFORE_NS = 1_000_000
"""How long before the first sight of its buffer a program on the way out may have run."""

REWRITTEN_NS = 20_000_000
"""How long a program may work on its copy of a packet: an emulated processor takes milliseconds."""

_ENDS = frozenset({Kind.FREE, Kind.CONSUME, Kind.DATA_READY})
# what SOCKET_READ carries instead is the reader's name
_NO_CONTENTS = frozenset({Kind.ROUTE, Kind.NAPI_POLL, Kind.GRO_RESULT, Kind.SOCKET_READ})
_LATE = frozenset(
    {Kind.NAPI_POLL, Kind.SOCKET_READ, Kind.XDP_EXCEPTION, Kind.XDP_REDIRECT, Kind.XDP_TX,
     Kind.XDP_TRANSMIT}
)  # fmt: skip
_PASSING = frozenset(
    {Kind.DEV_QUEUE, Kind.DEV_XMIT, Kind.NETIF_RX, Kind.GRO_RECEIVE, Kind.RECEIVE_SKB,
     Kind.TC_INGRESS, Kind.TC_EGRESS, Kind.NETFILTER_FIRST}
)  # fmt: skip
"""A copy that is met here goes its own way; others only say that somebody got one."""
_BORN = frozenset({Kind.DEV_QUEUE, Kind.DEV_XMIT, Kind.NETIF_RX, Kind.GRO_RECEIVE})
IN_TRANSPORT = frozenset({Kind.CGROUP_INGRESS, Kind.DATA_READY, Kind.QUEUE_FULL, Kind.FREE})
"""Where a datagram is met first that UDP cut out of a large one for a socket without UDP_GRO."""
# enum gro_result (GRO_MERGED and GRO_MERGED_FREE, GRO_HELD); NF_INET_* hook numbers
_MERGED, _HELD = (0, 1), 2
_PREROUTING, _LOCAL_OUT = 0, 3
_LONGEST_LIST = 64
"""As many packets as a poll takes: of more, nobody knows which a late word is about."""
_AF_INET = 2
_CANDIDATES = 8


@dataclass(slots=True)
class Journey:
    """All records of one packet, in order of time.

    Attributes:
        number: in order of first sight, from 0.
        packet: as first read; None while unreadable.
        now: as it is since a program rewrote it; else the same.
        cookie: of its payload, 0 if none was seen.
        own: what probes of the user's own saw of it, each with its place in the order of time.
        relations: to other packets.
        fingerprints: of everything it has been: translations change it.
        opened: buffers in which it was decrypted.
        live: buffers that hold it now, and their storage.
        grown: bytes of payload in it since GRO held it, 0 if it did not.
        pieces: datagrams that were cut out of it: place in it -> bytes of payload.
    """

    number: int
    packet: Packet | None = None
    now: Packet | None = None
    cookie: int = 0
    records: list[Record] = field(default_factory=list)
    own: list[tuple[int, OwnEvent]] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    fingerprints: set[tuple[object, ...]] = field(default_factory=set)
    live: dict[int, int] = field(default_factory=dict)
    grown: int = 0
    pieces: dict[int, int] = field(default_factory=dict)
    opened: set[int] = field(default_factory=set)

    @property
    def last_ns(self) -> int:
        """Time of the last record."""
        return self.records[-1].ns if self.records else 0

    @property
    def first_seen(self) -> Record | None:
        """The first record with contents."""
        return next((record for record in self.records if record.packet), None)


class _Identifier:
    def __init__(self) -> None:
        self.journeys: list[Journey] = []
        self.by_buffer: dict[int, Journey] = {}
        self.by_contents: dict[tuple[object, ...], list[Journey]] = {}
        self.by_flow: dict[tuple[object, ...], list[Journey]] = {}
        self.held: dict[tuple[object, ...], Journey] = {}
        self.waiting: dict[int, list[Record]] = {}
        self.taken_by_tcp: dict[int, Journey] = {}
        self.offered: dict[int, Journey] = {}
        self.unrouted: dict[int, list[Journey]] = {}
        self.early: dict[int, list[Record]] = {}
        self.consumed: dict[int, tuple[Journey, Record]] = {}
        self.secrets: dict[tuple[object, ...], Journey] = {}

    def take(self, record: Record) -> None:
        if record.kind in _NO_CONTENTS or not record.packet:
            self._without_contents(record)
            return
        packet = innermost(record)
        journey = self._find(record, packet)
        if journey.packet is None or _comes_out(journey, record, packet):
            journey.packet = journey.now = packet
        journey.cookie = journey.cookie or record.cookie
        if not journey.records:
            journey.records += self._routes_before(record, packet)
            journey.records += self._entry_before(record)
        if (later := self._appended(journey, record)) is not None:
            # nothing of the older packet happens here: it was delivered before
            later.records.append(replace(record, packet=b""))
            return
        journey.records.append(record)
        if packet is not None:
            self._remember(journey, packet)
        self._hold(journey, record)
        self._in_prerouting(journey, record)
        if record.kind is Kind.GRO_RECEIVE:
            self.offered[record.cpu] = journey
        if record.kind is Kind.CONSUME:
            self.consumed[record.cpu] = journey, record
        if record.kind is Kind.TCP_SEGMENT:
            self.taken_by_tcp[record.cpu] = journey

    def _appended(self, journey: Journey, record: Record) -> Journey | None:
        """TCP appends data to the buffer queued last: whose data, if it was not this packet's."""
        # tcp_try_coalesce(): the newest buffer of the queue is then an older packet's
        later = self.taken_by_tcp.get(record.cpu)
        if record.kind is not Kind.DATA_READY or later is None or later is journey:
            return None
        told = any(r.kind is Kind.DATA_READY and r.netns == record.netns for r in journey.records)
        near = record.ns - later.last_ns < APPENDED_NS
        same = later.packet and journey.packet and later.packet.flow == journey.packet.flow
        return later if told and near and same else None

    def _remember(self, journey: Journey, packet: Packet) -> None:
        journey.fingerprints.add(packet.fingerprint)
        for table, key in (
            (self.by_contents, packet.fingerprint),
            (self.by_flow, packet.flow),
        ):
            known = table.setdefault(key, [])
            if journey not in known[-_CANDIDATES:]:
                known.append(journey)

    def _hold(self, journey: Journey, record: Record) -> None:
        """Note which buffer holds the packet now, or that this one no longer does."""
        before = self.by_buffer.get(record.skb)
        # the address was used again and nothing told: a reader's free is not seen on Linux 6.18
        if before is not None and before is not journey:
            before.live.pop(record.skb, None)
        if _ends(record):
            self._let_go(journey, record.skb)
        else:
            self.by_buffer[record.skb] = journey
            journey.live[record.skb] = record.head

    def _let_go(self, journey: Journey, skb: int) -> None:
        journey.live.pop(skb, None)
        if self.by_buffer.get(skb) is journey:
            del self.by_buffer[skb]

    # -- the same packet --------------------------------------------------------------------------

    def _find(self, record: Record, packet: Packet | None) -> Journey:
        known = self.by_buffer.get(record.skb)
        if packet is None:
            return known or self._new()
        # the buffer's address proves nothing alone: contents must confirm it, or overrule it
        offered = self.offered.get(record.cpu)
        last = offered.packet if offered is not None else None
        if known is not None and (
            _still(known, record, packet)
            or (known.packet is not None and grown_to(known.packet, known.grown, last, packet))
        ):
            return known
        if packet.protocol == ESP and packet.secret in self.secrets:
            hidden = self.secrets[packet.secret]
            # its first sight in this form: the later ones have these contents to go by
            if packet.fingerprint not in hidden.fingerprints:
                return hidden
        if known is not None and _comes_out(known, record, packet):
            return known
        same = [
            journey
            for journey in self.by_contents.get(packet.fingerprint, ())[-_CANDIDATES:]
            if _confirmed(journey, record, packet)
        ]
        original = next((journey for journey in same if _shared(journey, record)), None)
        # the same bytes in the same storage at another address: a bridge's or program's clone
        if original is not None and record.kind in _PASSING:
            return self._copy_of(original)
        if (found := _only(same, record)) is not None:
            return found
        # other addresses or ports in a buffer that is alive: translated on the way
        if known is not None and not _begins(record, packet):
            if _changed(known.now, packet):
                return known
            if _other_payload(known, record, packet):
                known.now = packet
                return known
        return self._segment(record, packet) or self._rewritten(record, packet) or self._new()

    def _rewritten(self, record: Record, packet: Packet) -> Journey | None:
        """The packet whose buffer a driver's XDP program was given a copy of, and changed."""
        journey, before = self.consumed.pop(record.cpu, (None, record))
        if journey is None or journey.now is None or journey.live:
            return None
        here = (before.netns, before.ifindex) == (record.netns, record.ifindex)
        # veth_poll() takes one packet after the other from its program to GRO
        polled = record.kind is Kind.GRO_RECEIVE and Config.XDP_DRIVER in record.config
        if not (here and polled) or record.ns - before.ns > REWRITTEN_NS:
            return None
        first = journey.now
        if (first.protocol, first.ident) != (packet.protocol, packet.ident):
            return None
        same = first.flow == packet.flow or (journey.cookie and journey.cookie == record.cookie)
        if not same and not (packet.payload and _changed(first, packet)):
            return None
        journey.now = packet
        return journey

    def _new(self) -> Journey:
        journey = Journey(len(self.journeys))
        self.journeys.append(journey)
        return journey

    def _copy_of(self, original: Journey) -> Journey:
        copy = self._new()
        _relate(copy, Tie.CLONE_OF, original, "both buffers share their storage")
        return copy

    def _segment(self, record: Record, packet: Packet) -> Journey | None:
        """A new journey for a piece of a large packet that was just cut into segments."""
        born = record.kind in _BORN or (packet.protocol == UDP and record.kind in IN_TRANSPORT)
        if packet.protocol not in (TCP, UDP) or not born:
            return None
        for parent in reversed(self.by_flow.get(packet.flow, [])[-_LONGEST_LIST:]):
            if parent.packet is None or record.ns - parent.last_ns > SPLIT_NS:
                continue
            if reason := cut_from(parent.packet, packet, parent.pieces):
                piece = self._new()
                _relate(piece, Tie.SEGMENT_OF, parent, reason)
                return piece
        return None

    # -- records without contents -----------------------------------------------------------------

    def _without_contents(self, record: Record) -> None:
        journey = self.by_buffer.get(record.skb)
        if record.kind is Kind.NEIGHBOUR:
            journey = self._asking(record) or journey
        if record.kind is Kind.ROUTE and journey is not None:
            journey = self._routed(record) or journey
        if journey is not None and record.kind is not Kind.SOCKET_READ:
            journey.records.append(record)
            if record.kind is Kind.GRO_RESULT:
                self._merged(journey, record)
            elif record.kind is Kind.XFRM_ENCRYPT:
                self.secrets[secret_of(record)] = journey
            elif record.kind is Kind.XFRM_DECRYPT and record.verdict > 0:
                journey.opened.add(record.skb)
        elif record.kind is Kind.ROUTE:
            # the sender's own question: it belongs to the next packet to that destination
            self.waiting.setdefault(record.hash, []).append(record)
        elif record.kind in _LATE:
            self._of_the_past(record)
        elif record.kind is Kind.TC_EGRESS:
            # a program on the way out runs before anything reports the buffer
            self.early.setdefault(record.skb, []).append(record)

    def _in_prerouting(self, journey: Journey, record: Record) -> None:
        """Packets of a list pass prerouting one after the other, and only then are routed."""
        waiting = self.unrouted.setdefault(record.cpu, [])
        passed = record.kind is Kind.NETFILTER_LAST and record.arg == _PREROUTING
        if journey in waiting and not passed:
            waiting.remove(journey)
        elif passed and journey not in waiting:
            waiting.append(journey)
            del waiting[:-_LONGEST_LIST]

    def _routed(self, record: Record) -> Journey | None:
        """Which packet of a list a look-up is for: the first with these ends that has none."""
        waiting = self.unrouted.get(record.cpu, [])
        for journey in waiting:
            packet = outermost(journey.records[-1])
            if packet is None or record.ns - journey.last_ns > SPLIT_NS:
                continue
            ends = (packet.source, packet.destination)
            # on_route has no packet: head and hash hold the flow's source and destination
            if tuple(int.from_bytes(end.packed, "little") for end in ends) == (
                record.head & 0xFFFFFFFF,
                record.hash,
            ):
                # an error is one table's: with `ip rule` the next is asked for the same packet
                if not record.verdict:
                    waiting.remove(journey)
                return journey
        return None

    def _merged(self, journey: Journey, record: Record) -> None:
        """GRO puts segments in order into the one that it holds back."""
        entry = next((r for r in reversed(journey.records) if r.kind is Kind.GRO_RECEIVE), None)
        packet = innermost(entry) if entry is not None else None
        if entry is None or packet is None:
            return
        place = (entry.netns, entry.ifindex, packet.flow)
        if record.verdict == _HELD:
            self.held[place] = journey
            journey.grown = packet.size
        elif record.verdict in _MERGED:
            whole = self.held.get(place)
            first = whole.packet if whole is not None and whole is not journey else None
            if whole is not None and first is not None and follows(first, whole.grown, packet):
                reason = f"its {packet.size} bytes follow the {whole.grown} that GRO held"
                whole.grown += packet.size
                _relate(journey, Tie.MERGED_INTO, whole, reason)
            # GRO_MERGED_FREE fires no tracepoint: the address is free from here on
            self._let_go(journey, record.skb)

    def _asking(self, record: Record) -> Journey | None:
        """A neighbour's state is told behind the question that ARP sent: who made it ask?"""
        here = (
            journey
            for journey in self.journeys[-_CANDIDATES_ON_CPU:]
            if journey.packet is not None
            and journey.packet.protocol
            and journey.records[-1:]
            and journey.records[-1].cpu == record.cpu
            and record.ns - journey.last_ns < ENTRY_BEFORE_NS
        )
        return max(here, key=lambda journey: journey.last_ns, default=None)

    def _of_the_past(self, record: Record) -> None:
        """What a poll, a program or a reader did is told later: over may be the buffer's life."""
        for journey in reversed(self.journeys):
            if any(seen.skb == record.skb for seen in journey.records):
                journey.records.append(record)
                return

    def _entry_before(self, record: Record) -> list[Record]:
        entries = self.early.pop(record.skb, [])
        return [entry for entry in entries if record.ns - entry.ns < ENTRY_BEFORE_NS]

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
        # a packet socket is woken for its copy: the packet itself goes on
        return record.arg >> 32 == _AF_INET
    return record.kind in _ENDS


def _confirmed(journey: Journey, record: Record, packet: Packet) -> bool:
    """Whether equal headers are the same packet: payload, cookie and place must not object."""
    if record.ns - journey.last_ns >= SAME_PACKET_NS or journey.now is None:
        return False
    if journey.cookie and record.cookie and journey.cookie != record.cookie:
        return False
    if not _prefix(journey.now.payload, packet.payload):
        return False
    first = journey.first_seen
    # a packet does not begin twice: another buffer where it began is another packet
    return record.skb in journey.live or first is None or _place(first) != _place(record)


def _shared(journey: Journey, record: Record) -> bool:
    return bool(record.head) and record.head in journey.live.values()


def _place(record: Record) -> tuple[int, ...]:
    return record.kind, record.netns, record.ifindex, record.arg


def _prefix(one: bytes, two: bytes) -> bool:
    length = min(len(one), len(two))
    return one[:length] == two[:length]


def _only(same: list[Journey], record: Record) -> Journey | None:
    """The one candidate; of several the one with this storage, or the one without a buffer."""
    for narrowed in (
        same,
        [journey for journey in same if _shared(journey, record)],
        [journey for journey in same if not journey.live],
    ):
        if len(narrowed) == 1:
            return narrowed[0]
    return None


def _still(known: Journey, record: Record, packet: Packet) -> bool:
    """Whether the buffer still holds what it held."""
    first = known.first_seen
    again = first is not None and _begins(record, packet) and _place(first) == _place(record)
    alike = known.now is None or _prefix(known.now.payload, packet.payload)
    return packet.fingerprint in known.fingerprints and alike and not again


def _comes_out(known: Journey, record: Record, packet: Packet | None) -> bool:
    """Whether this is what was inside a packet that was never seen in clear before."""
    hidden = known.packet is not None and known.packet.protocol == ESP
    clear = packet is not None and packet.protocol != ESP
    return hidden and clear and record.skb in known.opened


def _begins(record: Record, packet: Packet) -> bool:
    """Whether a packet begins here: sent by a socket, not by a tunnel that wrapped one."""
    out = record.kind is Kind.NETFILTER_FIRST and record.arg == _LOCAL_OUT
    return out and packet.vni is None


def _changed(before: Packet | None, now: Packet) -> bool:
    """Whether ``now`` may be ``before`` with other addresses or ports."""
    if before is None:
        return True
    kept = (before.protocol, before.ident, before.serial[:2])
    return kept == (now.protocol, now.ident, now.serial[:2]) and _prefix(
        before.payload, now.payload
    )


def _other_payload(known: Journey, record: Record, packet: Packet) -> bool:
    """Whether a program rewrote the payload, and nothing else, of a buffer that is alive."""
    first = known.first_seen
    if packet.fingerprint not in known.fingerprints or first is None:
        return False
    if known.cookie and record.cookie:
        return known.cookie == record.cookie
    # without one, only storage that was never given back says that it is the same packet
    return known.live.get(record.skb) == record.head and _place(first) != _place(record)


def _relate(journey: Journey, tie: Tie, other: Journey, reason: str) -> None:
    journey.relations.append(Relation(tie=tie, packet=other.number, reason=reason))
    other.relations.append(Relation(tie=tie.inverse, packet=journey.number, reason=reason))


def _by_content(found: list[Journey]) -> None:
    """Relate what carries the same cookie: an answer, or a proxy's second connection."""
    bearers: dict[int, list[Journey]] = {}
    for journey in found:
        if journey.cookie and journey.packet is not None:
            bearers.setdefault(journey.cookie, []).append(journey)
    for alike in bearers.values():
        for index, journey in enumerate(alike):
            _related_by_cookie(alike[:index], journey)


def _related_by_cookie(earlier: list[Journey], journey: Journey) -> None:
    """Relate a packet to the one with its cookie that reached its sender before it began."""
    now, began = journey.packet, journey.first_seen
    if now is None or began is None:
        return
    causes = [first for first in earlier if _arrived(first, now, began.ns)]
    reason = f"content: it carries the same cookie {journey.cookie:016x} onwards"
    for first in causes:
        if first.packet is not None and _turned(first.packet, now):
            _relate(journey, Tie.ANSWER_TO, first, reason)
            return
    if causes:
        _relate(journey, Tie.CAUSED_BY, causes[-1], reason)


def _arrived(first: Journey, now: Packet, began_ns: int) -> bool:
    ready = (record.ns for record in first.records if record.kind is Kind.DATA_READY)
    arrived = next(ready, None)
    there = first.packet is not None and first.packet.destination == now.source
    return there and arrived is not None and arrived <= began_ns


def _turned(before: Packet, now: Packet) -> bool:
    return (now.destination, now.ports) == (before.source, before.ports[::-1])


def journeys(records: Iterable[Record]) -> tuple[Journey, ...]:
    """Return the packets that records are about, in the order in which each was first seen.

    Args:
        records: of any number of packets, in any order.
    """
    identifier = _Identifier()
    # the lanes keep the order of each processor only
    for record in sorted(records, key=lambda record: record.ns):
        identifier.take(record)
    _by_content(identifier.journeys)
    return tuple(identifier.journeys)
