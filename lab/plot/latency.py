"""How long a packet takes from hop to hop, with the error that watching it brings in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from lab.errors import InputError, PrerequisiteError
from lab.report.passages import passages
from lab.report.style import title
from lab.trace import Side, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {Side.SEND: "#e69f00", Side.RECEIVE: "#0072b2", Side.OTHER: "#999999"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The time from one sight of a packet to the next.

    Attributes:
        label: where the stretch begins, in words.
        side: receiving or sending.
        start_us: median time of its begin, in microseconds since the injection.
        us: median duration in microseconds.
        low_us, high_us: shortest and longest of the packets.
        packets: how many packets were measured.
        sights: hooks that watched inside the stretch, each of which costs time.
    """

    label: str
    side: Side
    start_us: float
    us: float
    low_us: float
    high_us: float
    packets: int
    sights: int


def stretches(traces: Trace | Sequence[Trace], *, by: str = "place") -> tuple[Stretch, ...]:
    """Return the stretches of a packet's way, in order.

    Args:
        traces: of one packet, or of several that went the same way.
        by: ``place`` (from the first sight at a device to the first at the next) or ``hop``.

    Raises:
        InputError: no trace, or two packets that did not go the same way.
    """
    several = (traces,) if isinstance(traces, Trace) else tuple(traces)
    if by not in ("place", "hop"):
        raise InputError(f"no latency by {by!r}", hint="use 'place' or 'hop'")
    ways = [_marks(trace, by) for trace in several]
    if not ways or not all(ways):
        raise InputError("no packet was seen", hint="record one with `lab.trace()`")
    labels = [mark.label for mark in ways[0]]
    for way in ways[1:]:
        if [mark.label for mark in way] != labels:
            raise InputError(
                "the packets went different ways: their latencies cannot be compared",
                hint="compare the ways first: lab trace diff",
            )
    return tuple(_stretch([way[n : n + 2] for way in ways]) for n in range(len(labels) - 1))


def alike(traces: Sequence[Trace], *, by: str = "place") -> tuple[Trace, ...]:
    """Return those packets that went the commonest way, in their order.

    The first packet of a flow goes another way than the rest (a neighbour is looked up), so
    that its times must not be mixed with theirs.
    """
    ways: dict[tuple[str, ...], list[Trace]] = {}
    for trace in traces:
        ways.setdefault(tuple(mark.label for mark in _marks(trace, by)), []).append(trace)
    commonest: list[Trace] = []
    for way in ways.values():
        if len(way) > len(commonest):
            commonest = way
    return tuple(commonest)


@dataclass(frozen=True, slots=True)
class _Mark:
    label: str
    side: Side
    us: float
    sights: int


def _marks(trace: Trace, by: str) -> list[_Mark]:
    found: list[_Mark] = []
    end: _Mark | None = None
    for passage in passages(trace):
        seen = [hop for hop in passage.hops if hop.taken and hop.us is not None]
        if not seen:
            continue
        node, namespace, device = passage.place
        where = f"{namespace or node} {device} {_VERBS[passage.side]}".replace("  ", " ")
        for hop in seen if by == "hop" else seen[:1]:
            label = f"{where}: {title(hop)}" if by == "hop" else where
            found.append(_Mark(label, passage.side, hop.us or 0.0, 1 if by == "hop" else len(seen)))
        last = seen[-1]
        end = _Mark(f"{where}: {title(last)}", passage.side, last.us or 0.0, 0)
    # the last place has a duration too: until its last sight
    if end is not None and end.us > found[-1].us:
        found.append(end)
    return found


_VERBS = {Side.RECEIVE: "receives", Side.SEND: "sends", Side.OTHER: ""}


def _stretch(pairs: list[list[_Mark]]) -> Stretch:
    durations = [end.us - begin.us for begin, end in pairs]
    first = pairs[0][0]
    return Stretch(
        label=first.label,
        side=first.side,
        start_us=median(begin.us for begin, _ in pairs),
        us=median(durations),
        low_us=min(durations),
        high_us=max(durations),
        packets=len(pairs),
        sights=first.sights,
    )


def watching_cost_us(
    watched_us: Sequence[float], unwatched_us: Sequence[float], sights: int
) -> float:
    """Return what one sight adds to a packet's time, in microseconds.

    Args:
        watched_us: round-trip times with the tracer armed.
        unwatched_us: the same without; measured alternately, or the machine's mood is measured.
        sights: hooks that see the packet on its way there and back.

    Raises:
        InputError: nothing was measured.
    """
    if not watched_us or not unwatched_us or sights < 1:
        raise InputError("nothing was measured", hint="give round-trip times of both kinds")
    return max(0.0, (median(watched_us) - median(unwatched_us)) / sights)


def latency(
    traces: Trace | Sequence[Trace], *, by: str = "place", cost_us: float | None = None
) -> Figure:
    """Return a figure: one bar per stretch on a common time axis, its error stated.

    Args:
        traces: of one packet, or of several that went the same way.
        by: ``place`` or ``hop``.
        cost_us: what one sight costs (:func:`watching_cost_us`); drawn at the end of each bar as
            the part that is the tracer's own. None: said to be unknown.

    Raises:
        InputError: as in :func:`stretches`.
    """
    from matplotlib.figure import Figure

    found = stretches(traces, by=by)
    # without pyplot: no global state, no display, safe in threads
    figure = Figure(figsize=(10, 1.6 + 0.42 * len(found)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(found))
    axes.barh(rows, [one.us for one in found], left=[one.start_us for one in found],
              color=[_COLOURS[one.side] for one in found], height=0.62)  # fmt: skip
    if cost_us:
        # the cost is a mean: of a short stretch it may be more than all of it
        own = [min(one.us, one.sights * cost_us) for one in found]
        ends = [one.start_us + one.us - part for one, part in zip(found, own, strict=True)]
        axes.barh(rows, own, left=ends, height=0.62, color="none", edgecolor="#333", hatch="////",
                  linewidth=0)  # fmt: skip
    if found[0].packets > 1:
        axes.errorbar([one.start_us + one.us for one in found], rows, fmt="none", color="#333",
                      capsize=3, xerr=[[one.us - one.low_us for one in found],
                                       [one.high_us - one.us for one in found]])  # fmt: skip
    edge = max(one.start_us + one.high_us for one in found)
    for row, one in enumerate(found):
        axes.text(one.start_us + one.high_us + edge * 0.01, row, f"{one.us:.1f} µs", va="center")
    axes.set_yticks(rows, [one.label for one in found])
    axes.invert_yaxis()
    axes.set_xlim(right=edge * 1.12)
    axes.set_xlabel("microseconds since the injection\n" + error_statement(found, cost_us))
    axes.set_title("Where the time goes: orange sends, blue receives")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def write_latency(trace: Trace, path: Path, *, cost_us: float | None = None) -> Path:
    """Write the figure of one packet to a file (PNG, SVG or PDF by its ending); return the path.

    Args:
        trace: of the packet.
        path: of the file.
        cost_us: what one sight costs, as in :func:`latency`.

    Raises:
        InputError: the file cannot be written, or its ending names no kind of picture.
        PrerequisiteError: matplotlib is not installed.
    """
    try:
        figure = latency(trace, cost_us=cost_us)
    except ImportError as error:
        raise PrerequisiteError(
            f"no figure without matplotlib: {error}", hint="pip install 'ebpf-datapath-lab[plot]'"
        ) from error
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot write {path}: {error}", hint="end it in .png, .svg or .pdf"
        ) from None
    return path


def error_statement(found: Sequence[Stretch], cost_us: float | None) -> str:
    """Return the sentence about the error that stands below the figure."""
    packets = found[0].packets
    spread = (
        f"bars: median of {packets} packets, whiskers: all of them" if packets > 1 else "one packet"
    )
    if cost_us is None:
        return f"{spread}; the cost of watching is in the bars and was not measured"
    return f"{spread}; hatched: what watching adds, {cost_us:.2f} µs per sight (measured)"
