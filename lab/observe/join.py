"""Which packet an event of a user's own probe is about.

An address of a buffer decides where the event has one. Else the event belongs to the packet that
is in its hook on its processor: a softirq works on one packet's hook at a time, so the packet that
was reported at that device just before is the one, and only the first event after it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from lab.observe.identify import Journey
from lab.observe.programs import PROBES, Where
from lab.observe.records import Kind, Record
from lab.trace.own import At, OwnEvent

NEAR_NS = 2_000_000
"""No packet spends longer between two neighbouring places in the kernel."""
BESIDE_NS = 50_000
"""How long before a buffer's first sight, or behind its last, an event that names it means it."""

_ENDS = frozenset({Kind.FREE, Kind.CONSUME, Kind.DATA_READY})
_SAME = {
    probe.needs.removeprefix("btf_trace_"): probe.kind
    for probe in PROBES
    if probe.where is Where.TRACEPOINT
}
_LEADS_TO = {
    At.TC_INGRESS: frozenset({Kind.RECEIVE_SKB}),
    At.TC_EGRESS: frozenset({Kind.DEV_QUEUE, Kind.NETFILTER_LAST}),
    At.XDP: frozenset({Kind.CONSUME, Kind.NETIF_RX, Kind.RECEIVE_SKB, Kind.DEV_XMIT}),
}
"""What is reported of a packet just before a program in the hook runs on it."""

_Sight = tuple[Record, Journey]


def join(journeys: Sequence[Journey], events: Iterable[OwnEvent]) -> None:
    """Hand every event to the journey it is about; what is about no recorded packet stays out."""
    if not (ordered := sorted(events, key=lambda event: event.ns)):
        return
    buffers: dict[int, list[_Sight]] = {}
    processors: dict[int, list[_Sight]] = {}
    for journey in journeys:
        for record in journey.records:
            if record.packet:
                buffers.setdefault(record.skb, []).append((record, journey))
                processors.setdefault(record.cpu, []).append((record, journey))
    for sights in processors.values():
        sights.sort(key=lambda sight: sight[0].ns)
    used: set[tuple[int, str, str]] = set()
    for event in ordered:
        if event.skb:
            found = _by_buffer(event, buffers.get(event.skb, ()))
        else:
            found = _by_processor(event, processors.get(event.cpu, ()), used)
        if found is not None:
            found.own.append((_order(event, found), event))


def _order(event: OwnEvent, journey: Journey) -> int:
    """Return where the event belongs in the order of time.

    Of two programs on one tracepoint one is first: what the user's saw is told behind ours.
    """
    kind = _SAME.get(event.target)
    beside = [
        record.ns
        for record in journey.records
        if record.kind is kind and record.skb == event.skb
        and abs(record.ns - event.ns) < BESIDE_NS
    ]  # fmt: skip
    return min(beside, key=lambda ns: abs(ns - event.ns), default=event.ns)


def _by_buffer(event: OwnEvent, sights: Sequence[_Sight]) -> Journey | None:
    """Return the journey whose buffer it was, between its first and its last sight.

    Behind its end the address is another packet's within microseconds: there only a program on
    the tracepoint that reported the end still means this one.
    """
    lives: dict[int, list[Record]] = {}
    for record, journey in sights:
        lives.setdefault(journey.number, []).append(record)
    for _, journey in sights:
        life = lives[journey.number]
        last = max(life, key=lambda record: record.ns)
        ended = last.kind in _ENDS and last.kind is not _SAME.get(event.target)
        end = last.ns + (0 if ended else BESIDE_NS)
        if min(record.ns for record in life) - BESIDE_NS <= event.ns <= end:
            return journey
    return None


def _by_processor(
    event: OwnEvent, sights: Sequence[_Sight], used: set[tuple[int, str, str]]
) -> Journey | None:
    at = bisect_right(sights, event.ns, key=lambda sight: sight[0].ns)
    if not at:
        return None
    before, journey = sights[at - 1]
    after = sights[at][0] if at < len(sights) and sights[at][1] is journey else None
    if event.ns - before.ns > NEAR_NS or (before.ns, event.hook, event.function) in used:
        return None
    here = _is_place(event, before) and before.kind in _LEADS_TO.get(event.at, ())
    arrives = after is not None and after.ns - event.ns <= NEAR_NS and _is_place(event, after)
    if not (here or arrives):
        return None
    used.add((before.ns, event.hook, event.function))
    return journey


def _is_place(event: OwnEvent, record: Record) -> bool:
    if event.ifindex and event.ifindex != record.ifindex:
        return False
    return not event.places or (record.netns, record.ifindex) in event.places
