"""Records in, traces out: pure, without root, so that a recording can be assembled anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lab.observe.absent import fill
from lab.observe.arrival import end_inside
from lab.observe.headers import parse
from lab.observe.identify import Journey, journeys
from lab.observe.join import join
from lab.observe.ladder import Ladder
from lab.observe.met import Told, add_met
from lab.observe.mind import annotate, entries
from lab.observe.names import Names
from lab.observe.records import Config, Kind, MindRecord, Record
from lab.observe.walk import Builder, Walk
from lab.trace import Hop, PacketId, Side, Step, Trace
from lab.trace.own import OwnEvent

_IP_OFFSET = {"ethernet": 14, "ip": 0}


@dataclass(frozen=True, slots=True)
class Reading:
    """How records become lines: one for each kind of witness.

    Attributes:
        walks: packet's records, names and polls -> builder that holds its walks.
        fill: a receive walk, how it ended and whether in a tunnel -> its lines, none missing.
    """

    walks: Callable[[Journey, Names, Sequence[Record]], Builder]
    fill: Callable[[Walk, str, bool], list[Hop]]


TRACEPOINTS = Reading(Ladder, fill)
"""Tracepoints, stacks, programs in hooks."""


def assemble(
    records: Iterable[Record],
    notes: Sequence[MindRecord],
    names: Names,
    *,
    own: Sequence[OwnEvent] = (),
    told: Told = Told(),  # noqa: B008 (frozen)
    lost: int = 0,
    lab: str = "",
    topology: str = "",
    kernel: str = "",
    wall_ns: int = 0,
    missing: tuple[str, ...] = (),
    reading: Reading = TRACEPOINTS,
) -> tuple[Trace, ...]:
    """Return one trace per packet, in the order in which each was first seen.

    Args:
        records: of the probes, in any order.
        notes: of the datapath programs.
        names: for everything that is a number in them.
        own: what probes of the user's own wrote.
        told: what netfilter told.
        lost: records that the kernel could not hand over.
        lab: name of the lab.
        topology: name of its topology.
        kernel: release of the kernel.
        wall_ns: what to add to kernel time for the time since 1970.
        missing: evidence this kernel could not give.
        reading: of whose records these are.
    """
    sources = tuple(f"{name}: prog {number}" for name, number in names.programs.items())
    # the datapath's programs tell of their own entry: no probe sits beside them
    known = sorted([*records, *entries(notes, names)], key=lambda record: record.ns)
    # all of them: a poll names one packet at most, and covers every one that came with it
    polls = [record for record in known if record.kind is Kind.NAPI_POLL]
    found = [journey for journey in journeys(known) if journey.packet is not None]
    join(found, own)
    lines = annotate([_hops(journey, names, polls, reading) for journey in found], notes, names)
    lines = add_met(lines, found, told, names)
    return tuple(
        Trace(
            packet=_packet_id(journey, names),
            hops=_with_changes(hops),
            lost=lost,
            lab=lab,
            topology=topology,
            kernel=kernel,
            wall_ns=wall_ns,
            sources=sources,
            missing=missing,
            relations=tuple(journey.relations),
        )
        for journey, hops in zip(found, lines, strict=True)
    )


def _hops(
    journey: Journey, names: Names, polls: Sequence[Record], reading: Reading
) -> tuple[Hop, ...]:
    walks = reading.walks(journey, names, polls).walks
    lines: list[Hop] = []
    for index, walk in enumerate(walks):
        following = walks[index + 1] if index + 1 < len(walks) else None
        tunnel = _into_tunnel(walk, following)
        walk.judge(following is not None, tunnel)
        walk.bridged = _bridged(walk, following)
        if walk.side is Side.RECEIVE:
            lines += reading.fill(walk, _ended_by(walk, following, tunnel), tunnel)
        else:
            lines += walk.hops
    begin = min((hop.ns for hop in lines if hop.taken), default=0)
    return tuple(replace(hop, us=(hop.ns - begin) / 1000) if hop.taken else hop for hop in lines)


def _bridged(walk: Walk, following: Walk | None) -> bool:
    """Whether a bridge took the frame off its port."""
    if following is None or walk.drop is not None or walk.taken(Step.IP_ROUTING):
        return False
    return bool(walk.config & Config.RX_HANDLER)


def _into_tunnel(walk: Walk, following: Walk | None) -> bool:
    """Whether the packet comes in again in the same namespace without having been sent."""
    if following is None or walk.drop is not None or following.netns != walk.netns:
        return False
    if Side.SEND in (walk.side, following.side):
        return False
    return walk.taken(Step.IP_LOCAL_DELIVER) or (_packed(walk) and not _packed(following))


def _packed(walk: Walk) -> bool:
    """Whether the packet was inside a VXLAN datagram when it was last seen here."""
    last = next((hop for hop in reversed(walk.hops) if hop.before), None)
    outer = parse(_network(last), through=False) if last is not None else None
    return outer is not None and outer.wraps


def _ended_by(walk: Walk, following: Walk | None, tunnel: bool) -> str:
    """Say in words how a receive walk ended."""
    if walk.drop is not None:
        where = f"step {walk.drop.step}" if walk.drop.step else walk.drop.hook
        return f"the packet was dropped at {where}"
    if walk.taken(Step.DATA_READY):
        return ""
    if walk.gro == "merged":
        return next(hop.reason for hop in walk.hops if hop.step is Step.GRO_RECEIVE)
    if following is None:
        return end_inside(walk)
    to = following.place.device or following.place.namespace
    if tunnel and walk.opened:
        return f"ESP's handler decrypted it: what was inside comes in again at {to}"
    if following.place == walk.place:
        to = "another processor"
    if tunnel:
        return f"the tunnel's socket took the packet: unpacked, it comes in again at {to}"
    if walk.taken(Step.IP_ROUTING):
        return f"routed onwards to {to}"
    if walk.bridged:
        return f"the bridge took the frame and forwarded it to {to}"
    last = max((hop.step for hop in walk.hops if hop.step), default=None)
    programs = [hop for hop in walk.hops if hop.program and hop.step is not None]
    if not programs:
        return f"a program redirected the packet to {to} at step {last}"
    by = programs[-1]
    if by.verdict == "tx":
        return f"{by.program} sent the frame back to {to} at step {by.step}"
    return f"{by.program} redirected the packet to {to} at step {by.step}"


def _with_changes(lines: tuple[Hop, ...]) -> tuple[Hop, ...]:
    """Set ``after`` where the next sight of the packet shows other network-layer bytes."""
    changed = list(lines)
    seen = [index for index, hop in enumerate(lines) if hop.before and not _copied(lines, index)]
    for index, following in zip(seen, seen[1:], strict=False):
        before, after = lines[index], lines[following]
        if _network(before) != _network(after):
            changed[index] = replace(
                before,
                before=_network(before),
                after=_network(after),
                length=max(before.length - _IP_OFFSET[before.link_layer], 0),
                link_layer="ip",
            )
    return tuple(changed)


def _copied(lines: tuple[Hop, ...], index: int) -> bool:
    """Whether a line is about the copy that is made for XDP: the program has it afterwards."""
    here = lines[index]
    asked = (hop for hop in lines[:index] if hop.step is Step.XDP_DRIVER and hop.skb == here.skb)
    return here.step is Step.CLEAN_RX and any(hop.place == here.place for hop in asked)


def _network(hop: Hop) -> bytes:
    return (hop.before or b"")[_IP_OFFSET[hop.link_layer] :]


def _packet_id(journey: Journey, names: Names) -> PacketId:
    packet = journey.packet
    assert packet is not None
    first = next(record for record in journey.records if record.packet)
    source, destination = str(packet.source), str(packet.destination)
    return PacketId(
        cookie=f"{journey.cookie:016x}" if journey.cookie else "",
        protocol=packet.name,
        source=source,
        destination=destination,
        source_port=packet.ports[0],
        destination_port=packet.ports[1],
        length=first.length,
        sender=names.owners.get(source, ""),
        receiver=names.owners.get(destination, ""),
        info=packet.info,
        number=journey.number,
    )
