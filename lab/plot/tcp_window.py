"""The sender's windows over time: cwnd, ssthresh, receive window, in flight; states shaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.plot.tcp_style import (
    INK,
    LOST,
    SMALL_POINTS,
    STATE_COLOUR,
    TEXT_POINTS,
    compare,
    plain,
)
from lab.plot.tcp_style import figure as new_figure
from lab.plot.tcp_style import title as write_title
from lab.wire.events import NO_THRESHOLD, CongestionState, TcpEvent, What
from lab.wire.picture import Picture
from lab.wire.record import Flight
from lab.wire.recording import Recording
from lab.wire.rules import Way

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT_INCHES = 7.2
_NARROW = 0.003
_BURST_MS = 5.0
_LABEL_SHARE = 0.15
_CWND, _SSTHRESH, _RWND, _FLIGHT = "#0072B2", "#B35900", "#009E73", "#c9d6df"
_STATE_NAME = {
    CongestionState.DISORDER: "Disorder",
    CongestionState.CWR: "CWR",
    CongestionState.RECOVERY: "Recovery",
    CongestionState.LOSS: "Loss",
}


def draw(picture: Picture) -> Figure:
    """Return the picture as a matplotlib figure."""
    made, axes = new_figure(_HEIGHT_INCHES)
    recording = picture.recording
    events = [
        event
        for event in recording.events
        if event.at_client
        and event.what is not What.STATE
        and picture.from_ms <= recording.at_ms(event.time_ns) <= picture.to_ms
    ]
    top = max((event.cwnd for event in events), default=1) * 1.25
    first = min((f.sent.time_ns for f in _sent_by_client(picture) if f.sent.length), default=0)
    begin_ms = recording.at_ms(min(first, events[0].time_ns)) if events else 0.0
    end_ms = recording.at_ms(events[-1].time_ns) if events else 1.0
    _shade_states(axes, events, recording, narrow_ms=(end_ms - begin_ms) * _NARROW)
    _draw_flight(axes, picture, end_ms)
    _draw_windows(axes, events, picture, top)
    lost = [f for f in picture.flights() if f.lost and f.sent.length]
    if lost:
        axes.plot(
            [recording.at_ms(f.sent.time_ns) for f in lost], [top * 0.965] * len(lost), "X",
            markersize=11, color=LOST, markeredgecolor="white", label="segment lost", zorder=6,
        )  # fmt: skip
        _count_bursts(axes, [recording.at_ms(f.sent.time_ns) for f in lost], top * 0.965)
    axes.set_ylim(0, top)
    if events:
        axes.set_xlim(begin_ms, end_ms)
    axes.set_xlabel("milliseconds since the first packet", fontsize=TEXT_POINTS, color=INK)
    axes.set_ylabel(f"segments of {recording.mss_bytes} bytes", fontsize=TEXT_POINTS, color=INK)
    plain(axes)
    made.legend(loc="outside upper right", fontsize=SMALL_POINTS, frameon=False, ncols=6)
    write_title(axes, picture.title)
    compare(made, picture)
    return made


def _draw_windows(axes: Axes, events: list[TcpEvent], picture: Picture, top: float) -> None:
    recording = picture.recording
    # TCP reports before it works on a segment; what it sends then shows the result
    seen = [(event.time_ns, event.cwnd) for event in events]
    seen += [(f.sent.time_ns, f.sent.state.cwnd) for f in _sent_by_client(picture) if f.sent.state]
    seen.sort()
    axes.step([recording.at_ms(at) for at, _ in seen], [cwnd for _, cwnd in seen], where="post",
              color=_CWND, linewidth=2.8, label="cwnd", zorder=4)  # fmt: skip
    times = [recording.at_ms(event.time_ns) for event in events]
    limited = [e.ssthresh if e.ssthresh < NO_THRESHOLD else float("nan") for e in events]
    # NaN alone is unlike itself: before the first loss there is no threshold
    if any(value == value for value in limited):
        axes.step(times, limited, where="post", color=_SSTHRESH, linewidth=2.2,
                  linestyle=(0, (5, 2)), label="ssthresh", zorder=3)  # fmt: skip
    windows = [event.snd_wnd / recording.mss_bytes for event in events]
    # a window far above everything else would press the rest of the picture flat
    if windows and min(windows) < top:
        axes.step(times, windows, where="post", color=_RWND, linewidth=2.2,
                  linestyle=(0, (1, 1)), label="receive window", zorder=3)  # fmt: skip


def _sent_by_client(picture: Picture) -> list[Flight]:
    return [flight for flight in picture.flights() if flight.sent.way is Way.TO_SERVER]


def _count_bursts(axes: Axes, lost_ms: list[float], height: float) -> None:
    """Write how many were lost beside marks that lie on each other."""
    bursts: list[list[float]] = []
    for at in lost_ms:
        if not bursts or at - bursts[-1][-1] > _BURST_MS:
            bursts.append([])
        bursts[-1].append(at)
    span = lost_ms[-1] - lost_ms[0]
    for burst, after in zip(bursts, [*bursts[1:], [float("inf")]], strict=True):
        if len(burst) > 2 and after[0] - burst[-1] > _LABEL_SHARE * span:
            axes.annotate(
                f"{len(burst)} lost", (burst[-1], height), xytext=(12, 0), va="center",
                textcoords="offset points", fontsize=SMALL_POINTS, color=LOST,
            )  # fmt: skip


def _draw_flight(axes: Axes, picture: Picture, end_ms: float) -> None:
    states = [(f.sent.time_ns, f.sent.state) for f in _sent_by_client(picture) if f.sent.length]
    times = [picture.recording.at_ms(at) for at, state in states if state]
    # the segment being sent is not counted yet
    flying = [state.in_flight + 1 for _, state in states if state]
    if times:
        times, flying = [*times, end_ms], [*flying, flying[-1]]
    axes.fill_between(times, flying, step="post", color=_FLIGHT, label="in flight", zorder=1)


def _shade_states(
    axes: Axes, events: list[TcpEvent], recording: Recording, *, narrow_ms: float
) -> None:
    changes = [event for event in events if event.what is What.CONGESTION]
    ends = [event.time_ns for event in [*changes[1:], *events[-1:]]][: len(changes)]
    named: set[str] = set()
    for event, end_ns in zip(changes, ends, strict=True):
        name = _STATE_NAME.get(CongestionState(event.after))
        if name is None or (end_ns - event.time_ns) / 1e6 < narrow_ms:
            continue  # nobody would see the stripe and look for it
        axes.axvspan(
            recording.at_ms(event.time_ns),
            recording.at_ms(end_ns),
            color=STATE_COLOUR[name],
            alpha=0.35,
            linewidth=0,
            label=None if name in named else f"state {name}",
            zorder=0,
        )
        named.add(name)
