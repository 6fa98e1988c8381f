"""What the datapath costs a packet: ratios, side by side in one run; nothing is asserted.

Run it alone on the machine: ``lab bench datapath --plot DIR`` (root). Client and server share one
CPU for round trips (no wake-up of another CPU in the figure) and have one each for throughput.
``floor`` is the same way with empty programs on it: no datapath that goes it is faster. Ctrl-C
ends it with what whole rounds have told until then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from lab.cli.output import Format, print_json
from lab.plot.cost import Bar, Series, Slope, write_growth, write_ratios
from tests.bench import _growth
from tests.bench._measure import ROUNDS, bars, series, spread
from tests.bench._paths import EXPECTED_S, Contest, contests
from tests.bench._turns import Progress, in_turns
from tests.bench.programs import TITLES, Program, Table, programs, tables

PLOTS = os.environ.get("LAB_BENCH_PLOT", "")
OUTPUT = Format(os.environ.get("LAB_BENCH_OUTPUT", "table"))
PROGRAMS = "One packet through the programs"
POLICY = "A round trip by number of policy entries"
CONNTRACK = "A round trip by number of other flows"
SERVICES = "Opening a connection by number of services"
Found = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paths beside the first of them; values in ``unit``, in the order of the bars."""

    title: str
    unit: str
    values: tuple[tuple[float, ...], ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """Paths against a number, in microseconds."""

    title: str
    name: str
    what: str
    series: tuple[Series, ...]
    slopes: tuple[Slope, ...]


@dataclass(slots=True)
class Report:
    """All that was measured.

    Attributes:
        rounds: asked for: sets of labs for paths; sizes of tables are measured a multiple of it.
        complete: whether nothing asked for is missing.
    """

    _progress: Progress
    kernel: str = os.uname().release
    rounds: int = ROUNDS
    complete: bool = False
    comparisons: list[Comparison] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    _round: int = 0
    _contests: dict[str, Contest] = field(default_factory=dict)
    _gathered: dict[str, Found] = field(default_factory=dict)

    def begin_round(self) -> None:
        """Tell that another set of labs comes up."""
        self._round += 1
        self._progress.part(f"Round {self._round} of {self.rounds}: setting up labs")

    def compare(self, contests: list[Contest]) -> None:
        """Measure each contest's paths in turns, and keep one value of each path for this round."""
        for contest in contests:
            found: Found = {}
            title = f"Round {self._round} of {self.rounds}: {contest.title}"
            in_turns(contest.paths, contest.turns, found, title=title, progress=self._progress)
            gathered = self._gathered.setdefault(contest.title, {})
            for label, values in found.items():
                gathered.setdefault(label, []).append(contest.value(values))
            self._contests[contest.title] = contest

    def tell_contests(self) -> None:
        """Tell each path of each contest, and its ratio to the first, round by round."""
        self._progress.clear()
        for title, contest in self._contests.items():
            found, unit = self._gathered[title], "Gbit/s" if contest.is_stream else "us"
            made = bars(found, contest.goals, at_least=contest.is_stream)
            values = tuple(tuple(found[bar.label]) for bar in made)
            self.comparisons.append(Comparison(title, unit, values, made))
            say(f"\n{title}, {unit}")
            for bar in made:
                low, high = bar.between
                ratio = f"ratio {bar.ratio:.3f} [{low:.3f} to {high:.3f}]"
                say(f"  {bar.label:<32}{spread(found[bar.label]):<26} {ratio}  {bar.verdict}")

    def grow(
        self,
        title: str,
        name: str,
        what: str,
        paths: AbstractContextManager[_growth.Paths],
        rounds: int = ROUNDS,
    ) -> None:
        """Measure series in turns; tell them and their slopes."""
        found: Found = {}
        self._progress.part(f"{title}, setting up")
        with paths as measures:
            try:
                in_turns(measures, rounds, found, title=title, progress=self._progress)
            finally:
                self._progress.clear()
                if any(found.values()):
                    labels = dict.fromkeys(name.partition(" at ")[0] for name in found)
                    all_series = tuple(series(found, label) for label in labels)
                    slopes = tuple(one.slope for one in all_series)
                    self.growths.append(Growth(title, name, what, all_series, slopes))
                    tell_growth(title, all_series)

    def draw(self, folder: Path) -> None:
        """Draw everything as PNG and SVG."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(self.comparisons, 1):
            write_ratios(one.bars, one.title, folder / f"paths-{number}")
        for growth in self.growths:
            write_growth(growth.series, growth.title, growth.what, folder / growth.name)


def say(text: str) -> None:
    """Print for people; programs read the report at the end."""
    if OUTPUT is Format.TABLE:
        print(text, flush=True)


def tell_growth(title: str, all_series: tuple[Series, ...]) -> None:
    """Print series: each size, the slope, and what the largest size costs more."""
    say(f"\n{title}, us")
    for one in all_series:
        for position, size in enumerate(one.sizes):
            say(f"  {one.label:<10}{size:>7}  {spread(one.column(position))}")
        more, low, high = one.change_us
        say(f"  {one.label:<10}slope    {one.slope}")
        say(f"  {one.label:<10}in all   {more:+.3f} [{low:+.3f} to {high:+.3f}] us")


def compare_paths(report: Report) -> None:
    """Pod to pod on one node and across nodes, beside what the kernel alone does.

    Each round has labs of its own: two labs of the same description differ by more (where their
    tables lie in memory) than two measurements in one, and rounds that share a lab would not show
    it.
    """
    try:
        for _ in range(report.rounds):
            report.begin_round()
            with contests() as all_contests:
                report.compare(all_contests)
    finally:
        report.tell_contests()


def measure_programs(report: Report) -> None:
    """One packet in the programs alone: no device, no socket, no wake-up."""
    report._progress.part(PROGRAMS)
    report.programs = programs()
    report._progress.clear()
    say("\nOne packet through one hook and its tail calls, policy on")
    for one in report.programs:
        say(f"  {one}")
    say("\nThe same against the size of a table")
    for table in tables(report._progress):
        report._progress.clear()
        report.tables.append(table)
        say(f"  {table}")


def grow_policy(report: Report) -> None:
    """A policy map that gets fuller."""
    report.grow(
        POLICY, "policy", "policy entries, or rules of netfilter", _growth.policy(), 2 * ROUNDS
    )


def grow_conntrack(report: Report) -> None:
    """A conntrack table that gets fuller."""
    paths = _growth.conntrack()
    report.grow(CONNTRACK, "conntrack", "conntrack entries", paths, 4 * ROUNDS)


def grow_services(report: Report) -> None:
    """More and more services."""
    report.grow(SERVICES, "services", "services", _growth.services(), 2 * ROUNDS)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the benchmark.

    Attributes:
        measure: does it.
        seconds: of each of its sections, as once measured: in any case, and for each round.
    """

    measure: Callable[[Report], None]
    seconds: dict[str, tuple[float, float]]


PARTS = {
    "paths": Part(
        compare_paths,
        {
            f"Round {number} of {ROUNDS}: {title}": (seconds, 0)
            for number in range(1, ROUNDS + 1)
            for title, seconds in {"setting up labs": 4.5, **EXPECTED_S}.items()
        },
    ),
    "programs": Part(measure_programs, {PROGRAMS: (1.5, 0), **dict.fromkeys(TITLES, (0.5, 0.5))}),
    "policy": Part(grow_policy, {f"{POLICY}, setting up": (5, 0), POLICY: (1, 2.5)}),
    "conntrack": Part(grow_conntrack, {f"{CONNTRACK}, setting up": (1, 0), CONNTRACK: (0.5, 2)}),
    "services": Part(grow_services, {f"{SERVICES}, setting up": (15, 0), SERVICES: (0.7, 1.4)}),
}


def main(names: list[str]) -> None:
    """Measure the named parts, or all; tell them as asked and draw them where asked."""
    parts = [PARTS[name] for name in names or PARTS]
    progress = Progress(
        {
            section: fixed + each * ROUNDS
            for part in parts
            for section, (fixed, each) in part.seconds.items()
        }
    )
    report = Report(progress)
    try:
        for part in parts:
            part.measure(report)
        report.complete = True
    finally:
        progress.clear()
        if OUTPUT is Format.JSON:
            print_json(report)
        if PLOTS:
            report.draw(Path(PLOTS))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted: what whole rounds told is above", file=sys.stderr)
        sys.exit(130)
