"""What a wire does to chosen packets: one vocabulary, whatever carries it out.

A script is data: rules that name packets by what they are and by their ordinal. The TAP wire
(:mod:`lab.wire.judge`) knows all of it, the program at the receiver's ingress
(:mod:`lab.wire.ingress`) drops and duplicates chosen packets, netem (:mod:`lab.wire.netem`)
delays, loses or doubles all packets of a direction. Each refuses what it cannot do exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

from lab.errors import InputError

ETHERNET_BYTES = 14
SLOWEST_FRAME_S = 1.0


class Way(IntEnum):
    """The two directions of a wire between a client and a server."""

    TO_SERVER = 0
    TO_CLIENT = 1

    @property
    def back(self) -> Way:
        """The other direction."""
        return Way(1 - self)

    def __str__(self) -> str:
        return "client→server" if self is Way.TO_SERVER else "server→client"


class Kind(Enum):
    """What a packet is, as far as a wire can tell from its headers.

    ``WINDOW_UPDATE`` is a pure ACK that repeats the last acknowledgement number of its direction
    with a larger window.
    """

    ANY = "packet"
    DATA = "data"
    PURE_ACK = "ack"
    WINDOW_UPDATE = "window update"
    SYN = "SYN"
    SYN_ACK = "SYN-ACK"
    FIN = "FIN"
    RST = "RST"
    DATAGRAM = "datagram"
    ICMP = "ICMP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which packets a rule is about.

    Attributes:
        kind: what the packet is.
        way: its direction.
        nth: ordinals from 1 among the packets that satisfy everything else, in the order the wire
            sees them, retransmissions included; empty for every packet.
        first_byte: data whose first byte has this number, the stream's first byte being 1
            (sequence number minus initial sequence number); None for any.
        longer_than_bytes: IP packets longer than this.
    """

    kind: Kind
    way: Way
    nth: tuple[int, ...] = ()
    first_byte: int | None = None
    longer_than_bytes: int = 0

    def __post_init__(self) -> None:
        if any(n < 1 for n in self.nth) or len(set(self.nth)) != len(self.nth):
            raise InputError(
                f"ordinals {self.nth} of {self.kind.value}: each must be at least 1 and named once",
                hint="the first packet is number 1",
            )
        if self.first_byte is not None and self.kind is not Kind.DATA:
            raise InputError(
                f"a byte number chooses data, not a {self.kind.value}",
                hint="use data(first_byte=...)",
            )

    def __str__(self) -> str:
        parts = [self.kind.value]
        if self.nth:
            parts.append("#" + ",".join(map(str, self.nth)))
        if self.first_byte is not None:
            parts.append(f"from byte {self.first_byte}")
        if self.longer_than_bytes:
            parts.append(f"over {self.longer_than_bytes} bytes")
        return f"{' '.join(parts)} {self.way}"


def data(*nth: int, way: Way = Way.TO_SERVER, first_byte: int | None = None) -> Match:
    """Choose segments with payload by ordinal, by their first byte's number, or both."""
    return Match(kind=Kind.DATA, way=way, nth=nth, first_byte=first_byte)


def ack(*nth: int, way: Way = Way.TO_CLIENT) -> Match:
    """Choose segments that carry nothing but an acknowledgement."""
    return Match(kind=Kind.PURE_ACK, way=way, nth=nth)


def window_update(*nth: int, way: Way = Way.TO_CLIENT) -> Match:
    """Choose pure ACKs that repeat the last acknowledgement number with a larger window."""
    return Match(kind=Kind.WINDOW_UPDATE, way=way, nth=nth)


def syn(*nth: int) -> Match:
    """Choose the client's connection requests."""
    return Match(kind=Kind.SYN, way=Way.TO_SERVER, nth=nth)


def syn_ack(*nth: int) -> Match:
    """Choose the server's answers to connection requests."""
    return Match(kind=Kind.SYN_ACK, way=Way.TO_CLIENT, nth=nth)


def fin(*nth: int, way: Way = Way.TO_SERVER) -> Match:
    """Choose segments that close their direction."""
    return Match(kind=Kind.FIN, way=way, nth=nth)


def datagram(*nth: int, way: Way = Way.TO_SERVER) -> Match:
    """Choose UDP datagrams."""
    return Match(kind=Kind.DATAGRAM, way=way, nth=nth)


def everything(way: Way, *, longer_than_bytes: int = 0) -> Match:
    """Choose every packet of a direction, or every one longer than so many IP bytes."""
    return Match(kind=Kind.ANY, way=way, longer_than_bytes=longer_than_bytes)


@dataclass(frozen=True, slots=True)
class Drop:
    """The packet never arrives."""

    match: Match


@dataclass(frozen=True, slots=True)
class Delay:
    """The packet arrives ``delay_ms`` later than the wire's own delay; later ones overtake it."""

    match: Match
    delay_ms: float


@dataclass(frozen=True, slots=True)
class Reorder:
    """The packet arrives right after the ``behind`` packets that follow it in its direction.

    If fewer follow within ``at_most_ms`` it arrives then.
    """

    match: Match
    behind: int = 1
    at_most_ms: float = 500.0


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The packet arrives ``copies`` more times."""

    match: Match
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Corrupt:
    """One bit of the packet's last byte is flipped, so that the receiver's checksum fails."""

    match: Match


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A direction carries ``rate_mbit`` Mbit/s and drops what finds ``queue_packets`` waiting."""

    way: Way
    rate_mbit: float
    queue_packets: int = 1000

    def serialisation_ns(self, frame_bytes: int) -> int:
        """Nanoseconds the wire is busy with a frame of so many bytes."""
        return round(frame_bytes * 8_000 / self.rate_mbit)


Rule = Drop | Delay | Reorder | Duplicate | Corrupt | Rate
PacketRule = Drop | Delay | Reorder | Duplicate | Corrupt


def describe(rule: Rule) -> str:
    """Say one rule as a phrase, for reports and pictures."""
    if isinstance(rule, Rate):
        return f"{rule.way}: {rule.rate_mbit:g} Mbit/s, queue of {rule.queue_packets} packets"
    detail = ""
    if isinstance(rule, Delay):
        detail = f" by {rule.delay_ms:g} ms"
    elif isinstance(rule, Reorder):
        detail = f" behind {rule.behind}"
    elif isinstance(rule, Duplicate) and rule.copies > 1:
        detail = f" {rule.copies} more times"
    return f"{type(rule).__name__.lower()} {rule.match}{detail}"


@dataclass(frozen=True, slots=True)
class Script:
    """The rules of one wire, free of contradictions.

    Raises:
        InputError: two rules want different things of one packet, a number makes no sense, or
            the rate does not let one full-size frame through its queue.
    """

    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for rule in self.rules:
            _check_numbers(rule)
        packet_rules = self.packet_rules
        for number, rule in enumerate(packet_rules):
            for other in packet_rules[:number]:
                _check_pair(other, rule)
        for way in Way:
            if sum(rate.way is way for rate in self.rates) > 1:
                raise InputError(
                    f"two rates for {way}", hint="keep one Rate per direction in the script"
                )

    @property
    def packet_rules(self) -> tuple[PacketRule, ...]:
        """The rules about chosen packets, in order."""
        return tuple(rule for rule in self.rules if not isinstance(rule, Rate))

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The rules about a whole direction."""
        return tuple(rule for rule in self.rules if isinstance(rule, Rate))

    def check_frame_fits(self, mtu_bytes: int) -> None:
        """Refuse a rate that a full-size frame cannot pass within a second.

        Raises:
            InputError: names the rate and how long one frame would take.
        """
        for rate in self.rates:
            seconds = rate.serialisation_ns(mtu_bytes + ETHERNET_BYTES) / 1e9
            if seconds > SLOWEST_FRAME_S:
                raise InputError(
                    f"{describe(rate)}: one full-size segment takes {seconds:.1f} s, "
                    "longer than the first retransmission timeout",
                    hint=f"use at least {(mtu_bytes + ETHERNET_BYTES) * 8 / 1e6:.3f} Mbit/s",
                )


def script(rules: Iterable[Rule]) -> Script:
    """Return the rules as a checked script."""
    return Script(tuple(rules))


def _check_numbers(rule: Rule) -> None:
    problem = ""
    if isinstance(rule, Rate):
        if rule.rate_mbit <= 0:
            problem = "a rate must be above 0 Mbit/s"
        elif rule.queue_packets < 1:
            problem = "a queue that holds no segment lets nothing through"
    elif isinstance(rule, Delay) and rule.delay_ms <= 0:
        problem = "a delay must be above 0 ms"
    elif isinstance(rule, Reorder) and (rule.behind < 1 or rule.at_most_ms <= 0):
        problem = "a reordered packet goes behind at least 1 other"
    elif isinstance(rule, Duplicate) and rule.copies < 1:
        problem = "a duplicate needs at least 1 copy"
    if problem:
        raise InputError(f"{describe(rule)}: {problem}", hint="correct the number in the script")


# what cannot be told before the packets come (does segment 3 begin with byte 2001?) passes; the
# judge then lets the first rule that takes the packet away win
def _same_packets(one: Match, other: Match) -> bool:
    predicate = (one.kind, one.way, one.first_byte, one.longer_than_bytes)
    if predicate != (other.kind, other.way, other.first_byte, other.longer_than_bytes):
        return False
    return not one.nth or not other.nth or bool(set(one.nth) & set(other.nth))


def _check_pair(one: PacketRule, other: PacketRule) -> None:
    if not _same_packets(one.match, other.match):
        return
    exclusive = (Drop, Reorder)
    # delay, duplicate and corrupt go together; lost or held back, nothing else can happen to it
    if type(one) is type(other) or isinstance(one, exclusive) or isinstance(other, exclusive):
        raise InputError(
            f"contradiction: {describe(one)}, and {describe(other)}",
            hint="one packet can have one fate; remove one of the two rules",
        )
