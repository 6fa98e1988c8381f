"""Where a packet was sent at first, and where it was on its way to when it was lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from lab.observe.headers import ICMP, Packet, network_bytes_of, parse
from lab.trace import Hop, Met, Trace

_REDIRECTS = frozenset({"dnat", "redirect", "tproxy"})
"""Words of nft's and, in capitals, of iptables' rules that choose another destination."""


@dataclass(frozen=True, slots=True)
class Readdressed:
    """A change of a packet's destination.

    Attributes:
        asked: address and port before.
        meant: address and port behind.
        hop: the line that is responsible: the last one that saw the old destination.
        rule: of netfilter, that did it; None for a program.
    """

    asked: tuple[IPv4Address, int]
    meant: tuple[IPv4Address, int]
    hop: Hop
    rule: Met | None = None

    @property
    def by(self) -> str:
        """Who did it, in words."""
        if self.rule is not None:
            return f"{self.rule.name} in {self.hop.namespace}: {self.rule.text}"
        if self.hop.program:
            return f"{self.hop.program} on {self.hop.device} in {self.hop.namespace}"
        return f"something behind {self.hop.hook} in {self.hop.namespace}"


def inside(hop: Hop) -> Packet | None:
    """Return the innermost packet that a line shows, None if it shows none."""
    return _read(hop, through=True)


def outside(trace: Trace | None, hop: Hop | None) -> Packet | None:
    """Return the outermost packet at a line: as shown there, or last before in its namespace."""
    if trace is None or hop is None:
        return None
    shown = [
        one
        for one in trace.taken
        if one.before and one.namespace == hop.namespace and one.ns <= hop.ns
    ]
    return _read(shown[-1], through=False) if shown else None


def readdressed(trace: Trace, end: Hop) -> Readdressed | None:
    """Return the last change of a packet's innermost destination before a line, None for none."""
    found: Readdressed | None = None
    before: tuple[IPv4Address, int] | None = None
    last: Hop | None = None
    for hop in trace.taken:
        if hop.ns > end.ns or (packet := inside(hop)) is None:
            continue
        # ICMP has no ports: what stands in their place changes with the answer
        now = packet.destination, 0 if packet.protocol == ICMP else packet.ports[1]
        # a later fragment has no ports either
        now = (now[0], before[1]) if before and not now[1] else now
        if last is not None and before is not None and now != before:
            found = Readdressed(before, now, last, _translating(last))
        before, last = now, hop
    return found


def answers(trace: Trace, asked: Trace, destination: str) -> bool:
    """Tell whether a packet goes back to who asked, whose address may have been translated.

    Args:
        trace: of the packet.
        asked: the question's.
        destination: address that the question was sent to.
    """
    if trace is asked or asked.packet.source == trace.packet.source:
        return False
    seen = {str(packet.destination) for hop in trace.taken if (packet := inside(hop))}
    return asked.packet.source in seen | {trace.packet.destination} or (
        trace.packet.source == destination
    )


def redirecting(lines: Iterable[Hop], end: Hop) -> Met | None:
    """Return the rule that chose another destination in some lines before an end, if any did."""
    met = [rule for hop in lines if hop.ns <= end.ns and (rule := _translating(hop))]
    return met[-1] if met else None


def _translating(hop: Hop) -> Met | None:
    rules = (one for one in hop.met if one.kind == "rule")
    return next((one for one in rules if set(one.text.lower().split()) & _REDIRECTS), None)


def _read(hop: Hop, *, through: bool) -> Packet | None:
    if not hop.before:
        return None
    data = network_bytes_of(hop.before) if hop.link_layer == "ethernet" else hop.before
    return parse(data, through=through)
