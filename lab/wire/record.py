"""One tidy table of what happened between two hosts: every segment, at both ends, as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from lab.wire.frames import TCP, UDP, Flag, Header, distance, kind_of, options_of, parse
from lab.wire.judge import Fate
from lab.wire.log import Observation, SocketState
from lab.wire.loop import Passage
from lab.wire.rules import Kind, Way

CLIENT, SERVER = "client", "server"
_ENDS = {Way.TO_SERVER: (CLIENT, SERVER), Way.TO_CLIENT: (SERVER, CLIENT)}
# by the numbers of impair.c; a copy (3) is an arrival of the packet before it
_INGRESS_FATES = (Fate.DELIVERED, Fate.DROPPED, Fate.DUPLICATED, Fate.DELIVERED)
_COPY = 3


class End(Enum):
    """At which end of the wire a segment was seen."""

    SENT = "sent"
    RECEIVED = "received"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One packet seen at one end of the wire: a row of the table.

    Attributes:
        time_ns: monotonic clock, taken in the kernel.
        host: ``client`` or ``server``, where it was seen.
        end: whether that host sent or received it.
        way: its direction.
        kind: what it is.
        cookie: of the sending socket; 0 at the receiver and for packets without a socket.
        port: the client's port: which connection.
        seq: number of its first byte; the SYN is 0 and the stream's first byte 1.
        ack: number of the next byte expected from the other side; 0 without ACK flag.
        length: payload in bytes.
        flags: TCP flags.
        window: advertised window in bytes, scaling applied.
        sack: blocks received out of order, as (first, next after last) byte numbers.
        ip_id: identification field of the IP header.
        state: the sender's congestion state when it sent, if a TCP socket sent it.
        frame_bytes: length with the Ethernet header.
        frame: its first bytes.
    """

    time_ns: int
    host: str
    end: End
    way: Way
    kind: Kind
    cookie: int
    port: int
    seq: int
    ack: int
    length: int
    flags: Flag
    window: int
    sack: tuple[tuple[int, int], ...]
    ip_id: int
    state: SocketState | None
    frame_bytes: int
    frame: bytes

    @property
    def last(self) -> int:
        """Number of its last byte (``seq - 1`` for a segment without payload)."""
        return self.seq + self.length - 1

    @property
    def next_byte(self) -> int:
        """Acknowledgement number that covers this segment, SYN and FIN counting one byte."""
        return self.seq + self.length + bool(self.flags & (Flag.SYN | Flag.FIN))


@dataclass(frozen=True, slots=True)
class Flight:
    """One packet from its sender to its receiver.

    Attributes:
        sent: as the sender's device saw it.
        fate: what the wire did to it.
        arrived_ns: when each copy reached the receiver's device; empty if lost.
    """

    sent: Segment
    fate: Fate
    arrived_ns: tuple[int, ...]

    @property
    def lost(self) -> bool:
        """Whether it never arrived."""
        return self.fate.lost


@dataclass(slots=True)
class _Stream:
    """Where a direction's numbers begin and how its windows are scaled."""

    first_seq: int | None = None
    shift: int | None = None


@dataclass(frozen=True, slots=True)
class _Transit:
    fate: Fate
    arrived_ns: tuple[int, ...]


class Decoder:
    """Turns observations into segments with numbers relative to each connection's start."""

    def __init__(self, client_ifindex: int) -> None:
        self._client_ifindex = client_ifindex
        self._streams: dict[tuple[int, Way], _Stream] = {}

    def segments(self, observations: Iterable[Observation]) -> tuple[Segment, ...]:
        """Return one segment per observation, in the same order."""
        # twice: the first look learns where each direction's numbers begin, a late SYN included
        seen = tuple(observations)
        parsed = [(item, parse(item.head), self._way(item)) for item in seen]
        for _, header, way in parsed:
            self._learn(header, way)
        return tuple(self._segment(item, header, way) for item, header, way in parsed)

    def _way(self, item: Observation) -> Way:
        at_client = item.ifindex == self._client_ifindex
        return Way.TO_CLIENT if at_client == item.received else Way.TO_SERVER

    def _stream(self, port: int, way: Way) -> _Stream:
        return self._streams.setdefault((port, way), _Stream())

    def _learn(self, header: Header | None, way: Way) -> None:
        if header is None or header.protocol != TCP:
            return
        stream = self._stream(_client_port(header, way), way)
        if header.flags & Flag.SYN:
            stream.first_seq = header.seq
            stream.shift = options_of(header.options).window_shift
        elif stream.first_seq is None:
            # the recording began behind the handshake: what comes first is byte 1
            stream.first_seq = header.seq - 1

    def _segment(self, item: Observation, header: Header | None, way: Way) -> Segment:
        seq = ack = window = 0
        sack: tuple[tuple[int, int], ...] = ()
        if header is not None and header.protocol == TCP:
            port = _client_port(header, way)
            ours, theirs = self._stream(port, way), self._stream(port, way.back)
            seq = distance(ours.first_seq or 0, header.seq)
            start = theirs.first_seq if theirs.first_seq is not None else header.ack - 1
            ack = distance(start, header.ack) if header.flags & Flag.ACK else 0
            # RFC 7323, 2.2: only if both offered it, and never in the SYN itself
            scaled = not header.flags & Flag.SYN and theirs.shift is not None
            window = header.window << (ours.shift or 0) if scaled else header.window
            blocks = options_of(header.options).sack
            sack = tuple((distance(start, a), distance(start, b)) for a, b in blocks)
        return Segment(
            time_ns=item.time_ns,
            host=_ENDS[way][item.received],
            end=End.RECEIVED if item.received else End.SENT,
            way=way,
            kind=kind_of(header),
            cookie=item.cookie,
            port=_client_port(header, way) if header else 0,
            seq=seq,
            ack=ack,
            length=header.length if header else 0,
            flags=Flag(header.flags if header else 0),
            window=window,
            sack=sack,
            ip_id=header.ip_id if header else 0,
            state=item.state,
            frame_bytes=item.frame_bytes,
            frame=item.head,
        )


def _client_port(header: Header, way: Way) -> int:
    if header.protocol not in (TCP, UDP):
        return 0
    return header.source_port if way is Way.TO_SERVER else header.destination_port


def flights_over_wire(
    segments: Iterable[Segment], passages: Iterable[Passage]
) -> tuple[Flight, ...]:
    """Join what senders sent with what the TAP wire did: the n-th sent is the n-th it read."""
    transits: dict[Way, list[_Transit]] = {way: [] for way in Way}
    for passage in passages:
        arrived = tuple(wrote_ns for _, wrote_ns in passage.written)
        transits[passage.way].append(_Transit(passage.fate, arrived))
    return _join(segments, transits)


def flights_over_veth(
    segments: Iterable[Segment], observations: Iterable[Observation]
) -> tuple[Flight, ...]:
    """Join what senders sent with what the receivers' ingress programs decided, in order."""
    rows = tuple(segments)
    transits: dict[Way, list[_Transit]] = {way: [] for way in Way}
    for row, seen in zip(rows, observations, strict=True):
        if row.end is not End.RECEIVED:
            continue
        fate = _INGRESS_FATES[seen.fate]
        done = transits[row.way]
        if seen.fate == _COPY and done:
            done[-1] = _Transit(done[-1].fate, (*done[-1].arrived_ns, row.time_ns))
        else:
            done.append(_Transit(fate, () if fate.lost else (row.time_ns,)))
    return _join(rows, transits)


def _join(segments: Iterable[Segment], transits: dict[Way, list[_Transit]]) -> tuple[Flight, ...]:
    queues = {way: iter(done) for way, done in transits.items()}
    flights = []
    for row in segments:
        if row.end is End.SENT:
            # a packet whose transit is not known yet is still on its way
            transit = next(queues[row.way], _Transit(Fate.DELIVERED, ()))
            flights.append(Flight(row, transit.fate, transit.arrived_ns))
    return tuple(flights)
