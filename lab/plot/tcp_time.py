"""The time-sequence graph: which bytes left when, how far they are acknowledged and allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.plot.tcp_style import (
    CLOSED_COLOUR,
    COLOUR,
    INK,
    LOST,
    PALE,
    SMALL_POINTS,
    TEXT_POINTS,
    compare,
    plain,
)
from lab.plot.tcp_style import figure as new_figure
from lab.plot.tcp_style import title as write_title
from lab.plot.tcp_words import Line, Role, lines
from lab.wire.picture import Picture
from lab.wire.rules import Way

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT_INCHES = 7.2


def draw(picture: Picture) -> Figure:
    """Return the picture as a matplotlib figure."""
    made, axes = new_figure(_HEIGHT_INCHES)
    rows = lines(picture)
    sender = _busier(rows)
    data = [line for line in rows if line.flight.sent.way is sender and line.flight.sent.length]
    answers = [line for line in rows if line.flight.sent.way is not sender and line.arrived_ms]
    for line in data:
        _draw_data(axes, line)
    limited = _draw_edges(axes, answers, data)
    closed = _shade_closed(axes, answers)
    first_ms = min((line.sent_ms for line in rows), default=0.0)
    last_ms = max((max(line.arrived_ms, default=line.sent_ms) for line in rows), default=1.0)
    span = max(last_ms - first_ms, 1.0)
    axes.set_xlim(first_ms - span * 0.02, last_ms + span * 0.02)
    top = max((line.flight.sent.last for line in data), default=1)
    axes.set_ylim(-top * 0.03, top * 1.08)
    axes.set_xlabel("milliseconds since the first packet", fontsize=TEXT_POINTS, color=INK)
    axes.set_ylabel("byte number", fontsize=TEXT_POINTS, color=INK)
    plain(axes)
    _legend(made, data, limited=limited, closed=closed)
    write_title(axes, picture.title)
    compare(made, picture)
    return made


def _busier(rows: tuple[Line, ...]) -> Way:
    # the side that sends more has the graph's bytes; the other side's few would be a line at the
    # bottom
    sent = {way: 0 for way in Way}
    for line in rows:
        sent[line.flight.sent.way] += line.flight.sent.length
    return max(Way, key=lambda way: sent[way])


def _draw_data(axes: Axes, line: Line) -> None:
    sent = line.flight.sent
    colour = LOST if line.flight.lost else COLOUR[line.role]
    axes.plot([line.sent_ms] * 2, [sent.seq, sent.last], color=colour, linewidth=4, zorder=3)
    middle = (sent.seq + sent.last) / 2
    if line.flight.lost:
        axes.plot([line.sent_ms], [middle], marker="X", markersize=14, color=LOST, zorder=5,
                  markeredgecolor="white")  # fmt: skip
    elif line.role is Role.AGAIN:
        axes.plot([line.sent_ms], [middle], marker="D", markersize=9, color=colour, zorder=5,
                  markeredgecolor="white")  # fmt: skip


def _draw_edges(axes: Axes, answers: list[Line], data: list[Line]) -> bool:
    """Draw the two stairs; say whether the upper one is in the picture."""
    if not answers:
        return False
    times = [line.arrived_ms[0] for line in answers]
    acked = [line.flight.sent.ack for line in answers]
    # the last byte inside the window (RFC 9293: SND.UNA + SND.WND is the first outside)
    allowed = [line.flight.sent.ack + line.flight.sent.window - 1 for line in answers]
    axes.step(times, acked, where="post", color=COLOUR[Role.ACK], linewidth=2.4, zorder=2)
    top = max((line.flight.sent.last for line in data), default=1)
    limited = min(allowed) < top
    if limited:
        axes.step(times, allowed, where="post", color=PALE, linewidth=2, linestyle=(0, (5, 2)))
    return limited


def _shade_closed(axes: Axes, answers: list[Line]) -> bool:
    """Shade the time between hearing of window 0 and of another; say whether there is any."""
    since: float | None = None
    found = False
    for line in sorted(answers, key=lambda line: line.arrived_ms[0]):
        at = line.arrived_ms[0]
        if line.flight.sent.window == 0:
            since = at if since is None else since
        elif since is not None:
            axes.axvspan(since, at, color=CLOSED_COLOUR, linewidth=0, zorder=0)
            since, found = None, True
    return found


def _legend(made: Figure, data: list[Line], *, limited: bool, closed: bool) -> None:
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], color=COLOUR[Role.DATA], linewidth=4, label="data sent"),
        Line2D([], [], color=COLOUR[Role.ACK], linewidth=2.4, label="acknowledged up to"),
    ]
    if limited:
        keys.append(
            Line2D([], [], color=PALE, linestyle="--", linewidth=2, label="allowed up to (window)")
        )
    if closed:
        keys.append(Line2D([], [], color=CLOSED_COLOUR, linewidth=11, label="window 0"))
    if any(line.flight.lost for line in data):
        keys.append(
            Line2D([], [], color=LOST, marker="X", markersize=12, linewidth=4, label="lost")
        )
    if any(line.role is Role.AGAIN for line in data):
        keys.append(
            Line2D([], [], color=COLOUR[Role.AGAIN], marker="D", linewidth=4, label="sent again")
        )
    made.legend(
        handles=keys, loc="outside upper right", fontsize=SMALL_POINTS, frameon=False, ncols=5
    )
