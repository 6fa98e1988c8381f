"""What is to be drawn of a recording, as data; :mod:`lab.plot` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lab.wire.record import Flight
from lab.wire.recording import Recording
from lab.wire.rules import Kind


class Look(Enum):
    """The kinds of pictures."""

    SEQUENCE = "sequence"
    """Two timelines with an arrow per segment, losses crossed out."""

    TIME_SEQUENCE = "time-sequence"
    """Byte numbers over time: data, acknowledgements, the edge of the window."""

    WINDOW = "window"
    """cwnd, ssthresh, receive window and bytes in flight over time, states shaded."""

    COMPARISON = "comparison"
    """cwnd of each connection over time since its first data, losses marked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture of one recording.

    Attributes:
        look: its kind.
        title: what it shows, as a sentence.
        recording: what to draw.
        seed: what the textbook drawing says, where Linux differs; may be empty.
        linux: what Linux does instead; may be empty.
        note: what to look at, or what cannot be seen on the wire; may be empty.
        name: of its file, without folder and ending.
        from_ms: where it begins, in milliseconds since the first packet.
        to_ms: where it ends.
        skip_bytes: of the client's stream; the picture counts from the byte after them.
        labels: names of the connections, in the order of their first data; for datagrams, what
            became of each.
    """

    look: Look
    title: str
    recording: Recording
    seed: str = ""
    linux: str = ""
    note: str = ""
    name: str = ""
    from_ms: float = 0.0
    to_ms: float = float("inf")
    skip_bytes: int = 0
    labels: tuple[str, ...] = ()

    def flights(self) -> tuple[Flight, ...]:
        """Return the segments, datagrams and ICMP packets to draw, in the order of sending."""
        return tuple(
            flight
            for flight in self.recording.flights
            if (flight.sent.flags or flight.sent.kind in (Kind.ICMP, Kind.DATAGRAM))
            and self.from_ms <= self.recording.at_ms(flight.sent.time_ns) <= self.to_ms
        )
