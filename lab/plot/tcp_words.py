"""What a picture writes beside a segment, and in which role it draws it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from lab.wire.frames import Flag
from lab.wire.picture import Picture
from lab.wire.record import Flight
from lab.wire.recording import flag_names
from lab.wire.rules import Kind, Way

# behind Ethernet's and IPv4's headers
_ICMP_TYPE_AT = 14 + 20
_ICMP_NAMES = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}


class Role(Enum):
    """Why a segment is in a picture; each has one colour in every picture."""

    DATA = "data"
    ACK = "acknowledgement"
    AGAIN = "sent again"
    REPEATED = "duplicate ACK"
    CLOSED = "window 0"
    PROBE = "probe"
    CONTROL = "SYN, FIN, RST"


@dataclass(frozen=True, slots=True)
class Line:
    """One segment as pictures show it.

    Attributes:
        flight: the segment.
        role: decides the colour.
        label: what is written beside it.
        sent_ms: since the first packet of the recording.
        arrived_ms: one value per copy; empty if lost.
        became: what happened at the receiver, written beside the arrow's head.
    """

    flight: Flight
    role: Role
    label: str
    sent_ms: float
    arrived_ms: tuple[float, ...]
    became: str = ""

    @property
    def from_client(self) -> bool:
        """Whether the client sent it."""
        return self.flight.sent.way is Way.TO_SERVER


def lines(picture: Picture) -> tuple[Line, ...]:
    """Return what a picture shows, in the order of sending."""
    recording = picture.recording
    again = {id(f) for way in Way for f in recording.retransmissions(way)}
    repeated: dict[int, int] = {}
    for way in Way:
        counts: dict[tuple[int, int], int] = {}
        for flight in recording.duplicate_acks(way):
            key = (flight.sent.port, flight.sent.ack)
            counts[key] = counts.get(key, 0) + 1
            repeated[id(flight)] = counts[key]
    furthest: dict[tuple[int, Way], int] = {}
    said: dict[tuple[int, Way], int] = {}
    became = iter(picture.labels)
    drawn = {id(flight) for flight in picture.flights()}
    result = []
    for flight in recording.flights:
        sent = flight.sent
        key = (sent.port, sent.way)
        role = _role(flight, furthest.get(key, 0), id(flight) in again, id(flight) in repeated)
        # kept for every segment, drawn or not: a picture may begin in the middle
        furthest[key] = max(furthest.get(key, 0), sent.next_byte)
        # an acknowledgement that rides on data is written only where it says something new
        carries = sent.kind is Kind.DATA and sent.ack > said.get(key, 1)
        said[key] = max(said.get(key, 1), sent.ack)
        if id(flight) in drawn:
            result.append(
                Line(
                    flight,
                    role,
                    label(flight, role, repeated.get(id(flight), 0), picture.skip_bytes)
                    + (f"  + ACK {sent.ack}" if carries else ""),
                    recording.at_ms(sent.time_ns),
                    tuple(recording.at_ms(at) for at in flight.arrived_ns),
                    next(became, "") if sent.kind is Kind.DATAGRAM else "",
                )
            )
    return tuple(result)


def label(flight: Flight, role: Role, repeat: int = 0, skip_bytes: int = 0) -> str:
    """Return the words beside one segment: its bytes, or what it acknowledges."""
    sent = flight.sent
    if sent.way is Way.TO_SERVER:
        sent = replace(sent, seq=sent.seq - skip_bytes)
    else:
        sent = replace(sent, ack=sent.ack - skip_bytes)
    if sent.kind is Kind.ICMP:
        return f"ICMP {_ICMP_NAMES.get(sent.frame[_ICMP_TYPE_AT], 'message')}"
    if sent.kind is Kind.DATAGRAM:
        return f"datagram, {sent.length} bytes"
    if role is Role.CONTROL:
        says = f"{flag_names(sent.flags)}  seq {sent.seq}"
        return f"{says}, ack {sent.ack}" if sent.flags & Flag.ACK else says
    if role is Role.PROBE:
        return f"probe, {sent.length} bytes, seq {sent.seq}"
    if sent.kind is Kind.DATA:
        fin = " + FIN" if sent.flags & Flag.FIN else ""
        return f"{sent.seq}\u2013{sent.last}{fin}{'  again' if role is Role.AGAIN else ''}"
    words = f"ACK {sent.ack}"
    if sent.sack:
        left, right = sent.sack[0]
        # a block below the acknowledged byte says: this I had already
        words += f"  {'dsack' if left < sent.ack else 'sack'} {left}\u2013{right - 1}"
    if role is Role.REPEATED:
        return f"{words}  duplicate {repeat}"
    return f"{words}  win {sent.window}"


def _role(flight: Flight, next_byte: int, again: bool, repeated: bool) -> Role:
    sent = flight.sent
    if sent.kind in (Kind.ICMP, Kind.DATAGRAM):
        return Role.DATA if sent.way is Way.TO_SERVER else Role.ACK
    # before data: a SYN or reset opens or ends the connection whatever else it carries
    if sent.flags & (Flag.SYN | Flag.RST) or sent.kind is Kind.FIN:
        return Role.CONTROL
    if sent.kind is Kind.DATA:
        return Role.AGAIN if again else Role.DATA
    # an empty segment that begins before a byte already sent asks for an answer
    if sent.kind is Kind.PURE_ACK and sent.seq < next_byte:
        return Role.PROBE
    if repeated:
        return Role.REPEATED
    return Role.CLOSED if sent.window == 0 else Role.ACK
