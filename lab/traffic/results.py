"""What came of sending something, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One attempt to connect with TCP.

    Attributes:
        ok: the handshake was completed (and the reply came, if a payload was sent).
        error: errno name, ``timeout``, or empty.
        connect_us: duration of the handshake in microseconds.
        reply: what came back.
        local_port: source port that was used.
    """

    ok: bool
    error: str
    connect_us: float
    reply: bytes
    local_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """One UDP datagram and what came back.

    Attributes:
        ok: a reply came.
        error: errno name (``ECONNREFUSED``: an ICMP port unreachable came), ``timeout`` or empty.
        rtt_us: time to the reply in microseconds.
        cookie: the cookie that the payload carried.
    """

    ok: bool
    error: str
    rtt_us: float
    reply: bytes
    local_port: int
    cookie: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """ICMP echo requests and their replies.

    Attributes:
        sent: how many requests left.
        rtt_us: one value per reply in microseconds, in the order of sending.
        errors: ICMP errors that came instead: (type, code, sender).
    """

    sent: int
    rtt_us: tuple[float, ...]
    errors: tuple[tuple[int, int, str], ...]

    @property
    def ok(self) -> bool:
        """Whether every request was answered."""
        return len(self.rtt_us) == self.sent


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """What became of a long transfer so far.

    Attributes:
        sent: bytes handed to TCP.
        received: bytes that came back.
        retransmitted: segments that this end sent again (``tcpi_total_retrans``).
        error: why it ended early, empty if it did not.
    """

    sent: int
    received: int
    retransmitted: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long something took, of many tries.

    Attributes:
        count: tries, warm-up left out.
        p50_us: median in microseconds; ``p99_us`` the 99th percentile.
    """

    count: int
    p50_us: float
    p99_us: float
