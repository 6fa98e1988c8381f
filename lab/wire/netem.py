"""netem as a wire, where the kernel has the queueing discipline: what concerns every packet alike.

netem sits at the sender and rolls dice: it knows neither ordinals nor what a packet is. What it
can do exactly is to treat *all* packets of a direction alike: delay them, lose them, send each
twice. Anything else is refused, with what can do it instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.errors import KernelError, UnsupportedError
from lab.kernel.netns import NetworkNamespace
from lab.wire.judge import Fate
from lab.wire.record import End, Flight, Segment
from lab.wire.rules import (
    Delay,
    Drop,
    Duplicate,
    Kind,
    Match,
    PacketRule,
    Rate,
    Script,
    Way,
    describe,
)

# far more than an experiment has on its way: netem drops what goes beyond
_LIMIT_PACKETS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Netem:
    """What netem is asked for at one device.

    Attributes:
        delay_us: of every packet that leaves the device.
        limit_packets: how many it may hold.
        loses_all: whether nothing gets through.
        doubles_all: whether each packet is sent twice.
    """

    delay_us: int
    limit_packets: int = _LIMIT_PACKETS
    loses_all: bool = False
    doubles_all: bool = False

    def command(self, device: str) -> str:
        """Return the line of ``tc`` that does the same."""
        words = f"tc qdisc replace dev {device} root netem delay {self.delay_us}us"
        words += f" limit {self.limit_packets}"
        return words + " loss 100%" * self.loses_all + " duplicate 100%" * self.doubles_all


def translate(script: Script, *, delay_ms: float, way: Way = Way.TO_SERVER) -> Netem:
    """Return what netem has to do at the sender of one direction.

    Raises:
        UnsupportedError: a rule of either direction chooses packets, or wants something that
            netem does at random or tells the sending TCP of.
    """
    for rule in script.rules:
        if problem := _problem(rule):
            raise UnsupportedError(
                f"netem cannot do this exactly: {describe(rule)}: {problem}",
                hint="join the hosts by the TAP wire, or a veth pair for drops",
            )
    rules = [rule for rule in script.packet_rules if rule.match.way is way]
    more_ms = sum(rule.delay_ms for rule in rules if isinstance(rule, Delay))
    return Netem(
        delay_us=round((delay_ms + more_ms) * 1000),
        loses_all=any(isinstance(rule, Drop) for rule in rules),
        doubles_all=any(isinstance(rule, Duplicate) for rule in rules),
    )


def _problem(rule: PacketRule | Rate) -> str:
    """Say why netem is no good for a rule; empty if it is."""
    if isinstance(rule, Rate):
        # a full queue at the sender is local congestion, and no loss in the network
        return "it tells the sender of a full queue"
    if rule.match != Match(kind=Kind.ANY, way=rule.match.way):
        return "it knows neither ordinals nor kinds of packets"
    if isinstance(rule, Duplicate) and rule.copies > 1:
        return "it sends one copy at most"
    return "" if isinstance(rule, Drop | Delay | Duplicate) else "it rolls dice"


def attach(namespace: NetworkNamespace, ifindex: int, netem: Netem) -> None:
    """Make netem the device's queueing discipline, or change it; it goes with the device.

    Raises:
        UnsupportedError: the kernel has no netem.
    """
    wanted: dict[str, object] = {"delay": netem.delay_us, "limit": netem.limit_packets}
    if netem.loses_all:
        wanted["loss"] = 100
    if netem.doubles_all:
        wanted["duplicate"] = 100
    try:
        # `replace` changes one that is there without emptying it: what it holds still leaves
        namespace.request("tc", "replace", kind="netem", index=ifindex, handle="1:", **wanted)
    except KernelError as error:
        raise UnsupportedError(
            f"this kernel has no netem: {error.message}",
            hint="use medium=Medium.WIRE, or `lab vm -- lab run ...` on Debian's kernel",
        ) from None


@dataclass(frozen=True, slots=True)
class Since:
    """A script and since when it has been in force, on the monotonic clock."""

    time_ns: int
    script: Script

    def loses(self, way: Way) -> bool:
        """Whether nothing gets through in a direction."""
        rules = self.script.packet_rules
        return any(isinstance(rule, Drop) and rule.match.way is way for rule in rules)


def flights(segments: Iterable[Segment], history: Iterable[Since]) -> tuple[Flight, ...]:
    """Join each packet sent with the arrivals of the same bytes; netem says nothing about them."""
    rows, scripts = tuple(segments), tuple(history)
    arrivals: dict[tuple[Way, bytes], list[int]] = {}
    for row in rows:
        if row.end is End.RECEIVED:
            # by their bytes: netem numbers nothing, and a segment sent again has another IP id
            arrivals.setdefault((row.way, row.frame), []).append(row.time_ns)
    found = []
    for row in rows:
        if row.end is End.SENT:
            at = tuple(arrivals.get((row.way, row.frame), ()))
            # the script that was in force when it was sent, which later changes do not touch
            then = [since for since in scripts if since.time_ns <= row.time_ns][-1:]
            lost = not at and any(since.loses(row.way) for since in then)
            fate = Fate.DROPPED if lost else Fate.DUPLICATED if len(at) > 1 else Fate.DELIVERED
            found.append(Flight(row, fate, at))
    return tuple(found)


def unmet(seen: Iterable[Flight], now: Since) -> tuple[str, ...]:
    """Describe the rules in force that no packet has met yet."""
    ways = {flight.sent.way for flight in seen if flight.sent.time_ns >= now.time_ns}
    return tuple(
        f"{describe(rule)}: 0 such packets came"
        for rule in now.script.packet_rules
        if rule.match.way not in ways
    )
