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
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from lab import Options, Service, ServicePort
from lab.cli.output import Format, print_json
from lab.plot.cost import Bar, Series, Slope, write_growth, write_ratios
from tests.bench import _growth
from tests.bench._measure import (
    PLAIN,
    PORT,
    ROUNDS,
    add_bare_veth,
    add_floor,
    add_kernel_overlay,
    add_tunnel_floor,
    bars,
    lab_with,
    series,
    spread,
    stream,
    stream_of_two,
    trips,
)
from tests.bench._turns import Measure, Progress, in_turns
from tests.bench.programs import TITLES, Program, Table, programs, tables

PLOTS = os.environ.get("LAB_BENCH_PLOT", "")
OUTPUT = Format(os.environ.get("LAB_BENCH_OUTPUT", "table"))
SAME_MTU_STREAM, SAME_MTU_TUNNEL = 0.9, 1.0
SET_UP, PROGRAMS = "Setting up labs", "One packet through the programs"
HERE, THERE = "One node: round trip on one CPU", "Two nodes: round trip on one CPU"
STREAM_HERE, STREAM_THERE = "One node: a stream at MTU 1500", "Two nodes: a stream at MTU 1450"
ON_ONE, ON_TWO = "{} on one CPU", "{} on two CPUs"
STREAMS = {ON_ONE: stream, ON_TWO: stream_of_two}
SERVICE = "A service: round trip on one CPU"
POLICY = "A round trip by number of policy entries"
CONNTRACK = "A round trip by number of other flows"
SERVICES = "Opening a connection by number of services"
Found = dict[str, list[float]]
FAST = Options(host_routing="bpf", tcx=True, inline_tail_calls=True)
"""The way that carries the goals; legacy routing stands beside its floor."""


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
        rounds: asked for; parts that scatter more measure a multiple of it.
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

    def beside(
        self,
        title: str,
        unit: str,
        paths: dict[str, Measure],
        goals: dict[str, float],
        *,
        at_least: bool = False,
        rounds: int = ROUNDS,
    ) -> None:
        """Measure paths in turns; tell each and its ratio to the first, round by round."""
        found: Found = {}
        try:
            in_turns(paths, rounds, found, title=title, progress=self._progress)
        finally:
            self._progress.clear()
            if any(found.values()):
                self._compare(title, unit, found, bars(found, goals, at_least=at_least))

    def _compare(self, title: str, unit: str, found: Found, made: tuple[Bar, ...]) -> None:
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
    """Pod to pod on one node and across nodes, beside what the kernel alone does."""
    port = ServicePort(80, PORT)
    report._progress.part(SET_UP)
    with (
        lab_with(Options()) as ours,
        lab_with(Options(routing="native")) as native,
        lab_with(FAST) as tunnel,
        lab_with(replace(FAST, routing="native")) as short,
        lab_with(PLAIN) as plain,
        lab_with(PLAIN) as kube,
        lab_with(PLAIN) as floor,
        lab_with(PLAIN) as peer_floor,
        lab_with(PLAIN) as tunnel_floor,
    ):
        bare, overlay = add_bare_veth(plain), add_kernel_overlay(plain)
        add_kernel_overlay(kube, netfilter=True)
        add_floor(floor, "veth")
        add_floor(peer_floor, "peer")
        add_tunnel_floor(tunnel_floor)
        ours.apply(Service(name="one", ports=(port,), backends=("web",)))
        service = ours.service("one").address
        web, server = str(ours.pod("web").address), str(ours.pod("server").address)
        report.beside(
            HERE,
            "us",
            {
                "bare veth pair": lambda: trips(plain, "web", bare),
                "routed, no datapath": lambda: trips(plain, "web", web),
                "floor of legacy routing": lambda: trips(floor, "web", web),
                "pod to pod": lambda: trips(ours, "web", web),
                "floor of host routing": lambda: trips(peer_floor, "web", web),
                "pod to pod, host routing": lambda: trips(short, "web", web),
            },
            {"pod to pod, host routing": 1.1},
            rounds=2 * ROUNDS,
        )
        report.beside(
            SERVICE,
            "us",
            {
                "direct": lambda: trips(ours, "web", web),
                "ClusterIP": lambda: trips(ours, "web", service, 80),
            },
            {"ClusterIP": 1.05},
        )
        report.beside(
            THERE,
            "us",
            {
                "kernel bridge and VXLAN": lambda: trips(plain, "server", overlay),
                "kernel, bridge with netfilter": lambda: trips(kube, "server", overlay),
                "floor of the tunnel": lambda: trips(tunnel_floor, "server", server),
                "pod to pod, tunnel": lambda: trips(ours, "server", server),
                "pod to pod, tunnel, host routing": lambda: trips(tunnel, "server", server),
                "pod to pod, native": lambda: trips(native, "server", server),
                "pod to pod, native, host routing": lambda: trips(short, "server", server),
            },
            {"pod to pod, tunnel, host routing": 1.0},
            rounds=2 * ROUNDS,
        )
        for title, one in STREAMS.items():
            compare_streams(
                report,
                title.format(STREAM_HERE),
                {
                    "bare veth pair": partial(one, plain, "web", bare),
                    "floor of legacy routing": partial(one, floor, "web", web),
                    "floor of host routing": partial(one, peer_floor, "web", web),
                    "pod to pod": partial(one, native, "web", web),
                    "pod to pod, host routing": partial(one, short, "web", web),
                },
                {"pod to pod, host routing": SAME_MTU_STREAM},
            )
            compare_streams(
                report,
                title.format(STREAM_THERE),
                {
                    "kernel bridge and VXLAN": partial(one, plain, "server", overlay),
                    "kernel, bridge with netfilter": partial(one, kube, "server", overlay),
                    "floor of the tunnel": partial(one, tunnel_floor, "server", server),
                    "pod to pod, tunnel": partial(one, ours, "server", server),
                    "pod to pod, tunnel, host routing": partial(one, tunnel, "server", server),
                },
                {"pod to pod, tunnel, host routing": SAME_MTU_TUNNEL},
            )


def compare_streams(
    report: Report, title: str, paths: dict[str, Measure], goals: dict[str, float]
) -> None:
    """Streams scatter more than round trips: more rounds, and short ones."""
    report.beside(title, "Gbit/s", paths, goals, at_least=True, rounds=4 * ROUNDS)


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
            SET_UP: (5, 0),
            HERE: (0.4, 0.8),
            SERVICE: (0.2, 0.2),
            THERE: (0.4, 0.8),
            **{
                title.format(what): (1, 4)
                for title in STREAMS
                for what in (STREAM_HERE, STREAM_THERE)
            },
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
