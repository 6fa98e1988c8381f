"""The sequence diagram: two timelines, an arrow per segment, losses crossed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.plot.tcp_style import (
    COLOUR,
    INK,
    LOST,
    PALE,
    SMALL_POINTS,
    TEXT_POINTS,
    compare,
    width_inches,
)
from lab.plot.tcp_style import figure as new_figure
from lab.plot.tcp_style import title as write_title
from lab.plot.tcp_words import Line, Role, lines
from lab.wire.judge import Fate
from lab.wire.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLIENT_X, SERVER_X = 0.0, 1.0
_ROW = 1.0
"""Vertical room of one label; time is stretched where segments are dense."""
_LONGEST_GAP = 2.0
_LEAST_FALL = 0.8
_INCHES_PER_ROW = 0.28
_INCHES_PER_LETTER = 0.132
_TIME_INCHES = 1.1
_CLOSEST_INCHES = 3.0
_FINE_MS = 20.0
"""Pictures that end before give the time to a hundredth of a millisecond."""
_HALF_WAY, _AT_END = 0.42, 0.97


class _Clock:
    """Maps milliseconds to a height: true to scale within limits, never out of order.

    Long silences are cut (and said), dense moments are stretched until labels fit.
    """

    def __init__(self, rows: tuple[Line, ...]) -> None:
        moments = sorted(
            [(line.sent_ms, line.from_client, True, line.sent_ms) for line in rows]
            + [
                (at, line.from_client, False, line.sent_ms)
                for line in rows
                for at in line.arrived_ms
            ]
        )
        delay = min(
            (line.arrived_ms[0] - line.sent_ms for line in rows if line.arrived_ms), default=1
        )
        # an arrow falls by a row and a half, however short the way takes
        per_ms = 1.6 * _ROW / max(delay, 0.05)
        self.cuts: list[tuple[float, float, float]] = []
        self._height: dict[float, float] = {}
        y, before = 0.0, moments[0][0] if moments else 0.0
        # as if far above: the first ones have room
        last_label, last_head = {True: -9.0, False: -9.0}, {True: -9.0, False: -9.0}
        for at, client, sends, sent in moments:
            gap = (at - before) * per_ms
            if gap > _LONGEST_GAP * 1.5 and at - before > 2.5 * delay:
                self.cuts.append((y + _LONGEST_GAP * 0.72, at - before, _beside(rows, before, at)))
            y += min(gap, _LONGEST_GAP)
            if sends:
                y = max(y, last_label[client] + _ROW)
                last_label[client] = y
            else:
                # arrows of one direction stay side by side, as the segments did, and none is level
                y = max(y, last_head[client] + _ROW * 0.7, self._height[sent] + _LEAST_FALL)
                last_head[client] = y
            self._height[at] = y
            before = at
        self.total = y
        falls = sorted(
            self(line.arrived_ms[0]) - self(line.sent_ms) for line in rows if line.arrived_ms
        )
        self.fall = max(falls[len(falls) // 2], 1.4 * _ROW) if falls else 2 * _ROW

    def __call__(self, at_ms: float) -> float:
        return self._height[at_ms]


def _beside(rows: tuple[Line, ...], from_ms: float, to_ms: float) -> float:
    """Return where between the timelines a silence can be named without crossing an arrow."""
    for line in rows:
        if line.arrived_ms and line.sent_ms <= from_ms and line.arrived_ms[0] >= to_ms:
            return 0.22 if line.from_client else 0.78
    return 0.5


def draw(picture: Picture) -> Figure:
    """Return the picture as a matplotlib figure."""
    rows = lines(picture)
    clock = _Clock(rows)
    height = max(4.0, 2.2 + (clock.total + 2) * _INCHES_PER_ROW)
    made, axes = new_figure(height)
    left, right = _margins(rows, width_inches(height))
    axes.set_xlim(-left, 1 + right)
    axes.set_ylim(clock.total + 1.2, -1.6)
    axes.axis("off")
    for x, name in ((CLIENT_X, "client"), (SERVER_X, "server")):
        axes.plot([x, x], [-0.7, clock.total + 0.9], color=INK, linewidth=2.5, zorder=1)
        axes.text(x, -1.0, name, ha="center", fontsize=TEXT_POINTS + 3, weight="bold", color=INK)
    digits = 2 if rows and rows[-1].sent_ms < _FINE_MS else 0
    for line in rows:
        _draw_line(axes, line, clock, picture)
        axes.text(
            -left if line.from_client else 1 + right, clock(line.sent_ms),
            f"{line.sent_ms:.{digits}f} ms", ha="left" if line.from_client else "right",
            va="center", fontsize=SMALL_POINTS - 2, color=PALE,
        )  # fmt: skip
    for y, gap_ms, x in clock.cuts:
        axes.text(
            x, y, f"\u22ee  {gap_ms:.0f} ms  \u22ee", ha="center", va="center",
            fontsize=SMALL_POINTS, color=PALE,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2}, zorder=4,
        )  # fmt: skip
    write_title(axes, picture.title)
    compare(made, picture)
    return made


def _note(line: Line) -> str:
    fate = line.flight.fate
    return "" if fate is Fate.DELIVERED else f"  {fate.value}"


def _margins(rows: tuple[Line, ...], width: float) -> tuple[float, float]:
    # room beside each timeline for its longest label and the time of sending, as a share of the
    # distance between the two
    inches = [
        _TIME_INCHES
        + _INCHES_PER_LETTER
        * max((len(row.label + _note(row)) for row in rows if row.from_client is client), default=8)
        for client in (True, False)
    ]
    between = max(width - sum(inches), _CLOSEST_INCHES)
    return inches[0] / between, inches[1] / between


def _draw_line(axes: Axes, line: Line, clock: _Clock, picture: Picture) -> None:
    start = (CLIENT_X if line.from_client else SERVER_X, clock(line.sent_ms))
    end_x = SERVER_X if line.from_client else CLIENT_X
    colour = COLOUR[line.role]
    weight = 2.6 if line.role in (Role.AGAIN, Role.CLOSED) else 1.8
    spoilt = line.flight.fate is Fate.CORRUPTED
    if line.flight.lost:
        # a program at the receiver drops what has arrived there; a wire drops on the way
        _draw_lost(
            axes, start, end_x, clock.fall, _HALF_WAY if picture.recording.passages else _AT_END
        )
    elif spoilt:
        y = clock(line.arrived_ms[0])
        _draw_lost(axes, start, end_x, (y - start[1]), _AT_END)
    for at in () if spoilt else line.arrived_ms:
        axes.annotate(
            "",
            xy=(end_x, clock(at)),
            xytext=start,
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": weight,
                        "shrinkA": 0, "shrinkB": 0, "mutation_scale": 16},
        )  # fmt: skip
    side = -1 if line.from_client else 1
    axes.text(
        start[0] + side * 0.02,
        start[1],
        line.label + _note(line),
        ha="right" if line.from_client else "left",
        va="center",
        fontsize=TEXT_POINTS,
        color=LOST if line.flight.lost or spoilt else colour,
        weight="bold" if line.role is Role.AGAIN or line.flight.lost or spoilt else "normal",
    )
    if line.became and line.arrived_ms:
        axes.text(
            end_x - side * 0.02, clock(line.arrived_ms[0]), line.became, va="center",
            ha="left" if line.from_client else "right", fontsize=TEXT_POINTS, color=INK,
        )  # fmt: skip


def _draw_lost(
    axes: Axes, start: tuple[float, float], end_x: float, fall: float, share: float
) -> None:
    x = start[0] + (end_x - start[0]) * share
    y = start[1] + share * fall
    axes.plot([start[0], x], [start[1], y], color=LOST, linewidth=2.2, linestyle=(0, (4, 2)))
    axes.plot([x], [y], marker="X", markersize=17, color=LOST, markeredgecolor="white", zorder=5)
