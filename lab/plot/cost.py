"""What a packet costs beside something else, and against the size of a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import linear_regression
from typing import TYPE_CHECKING

from lab.errors import InputError
from lab.plot.tcp_style import INK, LOST, PALE, SMALL_POINTS, TEXT_POINTS, figure, plain, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#8F5A7E")
MARKERS = ("o", "s", "^", "D")
LINES = ("-", "-", "--", ":")
LETTER = 0.0125
"""Part of an axis that a letter beside a bar takes at most."""
_SUFFIXES = (".png", ".svg")


FEWEST_ROUNDS = 6
"""With fewer, the least and the most of the rounds enclose the median less often than 95 of 100."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return between which two of the values the true median lies, 95 times of 100.

    Nothing is assumed about how they scatter, so a round that the machine spoilt does no harm: at
    each end as many values are left out as chance puts on one side of a median less than once
    in 40 times. Of fewer than :data:`FEWEST_ROUNDS` values none is, and 95 is a promise not kept.
    """
    ordered, count = sorted(values), len(values)
    left_out, chance = 0, 0.5**count
    while chance + comb(count, left_out + 1) * 0.5**count <= 0.025:
        left_out += 1
        chance += comb(count, left_out) * 0.5**count
    return ordered[left_out], ordered[-1 - left_out]


@dataclass(frozen=True, slots=True)
class Slope:
    """What a thousand more entries add to a packet's cost, in nanoseconds.

    Attributes:
        ns_per_1000: the median of the rounds' slopes.
        low_ns, high_ns: its 95 % interval, from the spread of the rounds.
        rounds: that were measured.
    """

    ns_per_1000: float
    low_ns: float
    high_ns: float
    rounds: int

    @property
    def verdict(self) -> str:
        """What a reader wants to know."""
        told = "grows" if self.low_ns > 0 else "does not grow"
        return told if self.rounds >= FEWEST_ROUNDS else f"{told} (few rounds)"

    def __str__(self) -> str:
        large = abs(self.ns_per_1000) >= 1000
        divisor, unit = (1000, "µs") if large else (1, "ns")
        values = (self.ns_per_1000, self.low_ns, self.high_ns)
        middle, low, high = (f"{value / divisor:+.2f}" for value in values)
        return f"{middle} [{low} to {high}] {unit} per 1000: {self.verdict}"


@dataclass(frozen=True, slots=True)
class Series:
    """One measured path at growing sizes.

    Attributes:
        label: who did it.
        sizes: numbers of entries, in growing order.
        rounds: one tuple for each round, with a value in microseconds for each size.
    """

    label: str
    sizes: tuple[int, ...]
    rounds: tuple[tuple[float, ...], ...]

    def column(self, position: int) -> tuple[float, ...]:
        """Return what all rounds measured at one size, in microseconds."""
        return tuple(values[position] for values in self.rounds)

    @property
    def slope(self) -> Slope:
        """The median of the least-squares slopes of the rounds.

        Each round is fitted alone: that it was slower as a whole says nothing about sizes, and
        what remains beside the line of one round does not tell how far the next one is off.
        """
        xs = [size / 1000 for size in self.sizes]
        slopes = [linear_regression(xs, values).slope * 1000 for values in self.rounds]
        return Slope(statistics.median(slopes), *interval(slopes), len(slopes))

    @property
    def change_us(self) -> tuple[float, float, float]:
        """What the largest size costs more than the smallest: median and its interval.

        Says what a slope cannot, a cost that rises early and stays.
        """
        more = [values[-1] - values[0] for values in self.rounds]
        return (statistics.median(more), *interval(more))


@dataclass(frozen=True, slots=True)
class Bar:
    """One path beside the first of its group.

    Attributes:
        label: the path.
        ratios: to the first path of the group, round by round.
        goal: the ratio that is wanted, None for the path that the others are compared with.
        at_least: whether more is better.
    """

    label: str
    ratios: tuple[float, ...]
    goal: float | None = None
    at_least: bool = False

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def between(self) -> tuple[float, float]:
        """The 95 % interval of the median."""
        return interval(self.ratios)

    @property
    def is_missed(self) -> bool:
        """Whether the median's whole interval is on the wrong side of the goal."""
        return not any(map(self._reaches, self.between))

    def _reaches(self, ratio: float) -> bool:
        if self.goal is None:
            return True
        return ratio >= self.goal if self.at_least else ratio <= self.goal

    @property
    def verdict(self) -> str:
        """The goal in words, whether it was met and how surely; empty without a goal."""
        if self.goal is None:
            return ""
        sign = "≥" if self.at_least else "≤"
        told = "met" if self._reaches(self.ratio) else "missed"
        if len(self.ratios) < FEWEST_ROUNDS:
            told += " (few rounds)"
        elif len(set(map(self._reaches, self.between))) == 2:
            told += ", not surely"
        return f"goal {sign} {self.goal:.2f}: {told}"


def write_growth(series: Sequence[Series], heading: str, what: str, target: Path) -> None:
    """Draw cost against a number, both axes by factors, as ``target`` with .png and .svg.

    Args:
        series: with the same sizes.
        heading: what the picture shows.
        what: what there is more and more of.
        target: path without its ending; its folder exists.

    Raises:
        InputError: nothing was measured.
    """
    if not series or not all(one.rounds for one in series):
        raise InputError("nothing was measured", hint="give at least one series with a round")
    made, axes = figure(6.6)
    looks = zip(series, COLOURS, MARKERS, LINES, strict=False)
    for number, (one, colour, marker, line) in enumerate(looks):
        columns = [one.column(position) for position in range(len(one.sizes))]
        middles = [statistics.median(values) for values in columns]
        ends = [interval(values) for values in columns]
        below = [m - low for m, (low, _) in zip(middles, ends, strict=True)]
        above = [high - m for m, (_, high) in zip(middles, ends, strict=True)]
        axes.errorbar(
            one.sizes,
            middles,
            yerr=(below, above),
            color=colour,
            marker=marker,
            # where two lie on each other, both are seen
            markersize=13 - 3 * number,
            linestyle=line,
            linewidth=2,
            capsize=5,
            label=f"{one.label}: {one.slope}",
        )
    title(axes, heading)
    axes.set_xscale("log")
    _scale(axes, series)
    axes.set_xticks(series[0].sizes, [f"{size:,}" for size in series[0].sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel(what, fontsize=TEXT_POINTS, color=INK)
    axes.set_ylabel("µs (median and its 95 % interval)", fontsize=TEXT_POINTS, color=INK)
    axes.grid(axis="y", color=PALE, alpha=0.3)
    axes.legend(fontsize=SMALL_POINTS, frameon=False, loc="upper left")
    plain(axes)
    for suffix in _SUFFIXES:
        made.savefig(target.with_suffix(suffix))


def _scale(axes: Axes, series: Sequence[Series]) -> None:
    """From zero, so that a level line looks level; by factors where one series leaves the rest."""
    values = [value for one in series for values in one.rounds for value in values]
    # above the curves stands a legend with a line for each of them
    room = 1.15 + 0.12 * len(series)
    if max(values) < 8 * min(values):
        axes.set_ylim(0, max(values) * room)
        return
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 2, max(values) * 2.2 ** len(series))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_minor_formatter(lambda *_: "")


def write_ratios(bars: Sequence[Bar], heading: str, target: Path) -> None:
    """Draw ratios as bars with their goals, as ``target`` with .png and .svg.

    Raises:
        InputError: nothing was measured.
    """
    if not bars:
        raise InputError("nothing was measured", hint="give at least one path")
    made, axes = figure(1.8 + 0.62 * len(bars))
    right = 1.0
    for place, bar in enumerate(reversed(bars)):
        low, high = bar.between
        colour = PALE if bar.goal is None else LOST if bar.is_missed else COLOURS[0]
        axes.barh(place, bar.ratio, height=0.62, color=colour, alpha=0.85)
        axes.plot([low, high], [place, place], color=INK, linewidth=2)
        if bar.goal is not None:
            axes.plot([bar.goal] * 2, [place - 0.42, place + 0.42], color=INK, linestyle=":")
        words = f"{bar.ratio:.2f}   {bar.verdict}"
        # right of every mark, the line at 1 with them
        start = max(high, bar.goal or 0, 1) + 0.02
        right = max(right, start / (1 - LETTER * len(words)))
        axes.text(start, place, words, va="center", fontsize=SMALL_POINTS)
    axes.set_yticks(range(len(bars)), [bar.label for bar in reversed(bars)])
    axes.axvline(1, color=PALE, linewidth=1)
    axes.set_xlim(0, right)
    title(axes, heading)
    better = "more" if any(bar.at_least for bar in bars) else "less"
    words = f"ratio to “{bars[0].label}”, {better} is better"
    words += "\nbar: median of the rounds; line: its 95 % interval; dots: goal"
    axes.set_xlabel(words, fontsize=SMALL_POINTS)
    plain(axes)
    for suffix in _SUFFIXES:
        made.savefig(target.with_suffix(suffix))
