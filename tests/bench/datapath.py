"""What the datapath costs a packet: ratios, side by side in one run; nothing is asserted.

Run it alone on the machine: ``lab bench datapath --plot DIR`` (root). Client and server share one
CPU for round trips (no wake-up of another CPU in the figure) and have one each for throughput.
``floor`` is the same way with empty programs on it: no datapath that goes it is faster.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import Options, Service, ServicePort
from lab.cli.output import Format, print_json
from lab.plot.cost import Bar, Series, Slope, write_growth, write_ratios
from tests.bench import _growth
from tests.bench._measure import (
    PLAIN,
    PORT,
    ROUNDS,
    Measure,
    add_bare_veth,
    add_floor,
    add_kernel_overlay,
    add_tunnel_floor,
    bars,
    in_turns,
    lab_with,
    spread,
    stream,
    trips,
)
from tests.bench.programs import Program, Table, programs, tables

PLOTS = os.environ.get("LAB_BENCH_PLOT", "")
OUTPUT = Format(os.environ.get("LAB_BENCH_OUTPUT", "table"))
SAME_MTU_STREAM, SAME_MTU_TUNNEL = 0.9, 1.0
FAST = Options(host_routing="bpf", tcx=True)
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
    """All that was measured."""

    kernel: str = os.uname().release
    rounds: int = ROUNDS
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
        found = in_turns(paths, rounds)
        made = bars(found, goals, at_least=at_least)
        self.comparisons.append(
            Comparison(title, unit, tuple(tuple(found[bar.label]) for bar in made), made)
        )
        say(f"\n{title}, {unit}")
        for bar in made:
            line = f"  {bar.label:<32}{spread(found[bar.label]):<26} ratio {spread(bar.ratios)}"
            say(f"{line}  {bar.verdict}")

    def grow(self, title: str, name: str, what: str, found: list[Series]) -> None:
        """Tell series and their slopes."""
        slopes = tuple(one.slope for one in found)
        self.growths.append(Growth(title, name, what, tuple(found), slopes))
        say(f"\n{title}, us")
        for one, slope in zip(found, slopes, strict=True):
            for position, size in enumerate(one.sizes):
                say(f"  {one.label:<10}{size:>7}  {spread(one.column(position))}")
            say(f"  {one.label:<10}slope    {slope}")

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


def compare_paths(report: Report) -> None:
    """Pod to pod on one node and across nodes, beside what the kernel alone does."""
    port = ServicePort(80, PORT)
    with (
        lab_with(Options()) as ours,
        lab_with(Options(routing="native")) as native,
        lab_with(FAST) as tunnel,
        lab_with(replace(FAST, routing="native")) as short,
        lab_with(PLAIN) as plain,
        lab_with(PLAIN) as floor,
        lab_with(PLAIN) as peer_floor,
        lab_with(PLAIN) as tunnel_floor,
    ):
        bare, overlay = add_bare_veth(plain), add_kernel_overlay(plain)
        add_floor(floor, "veth")
        add_floor(peer_floor, "peer")
        add_tunnel_floor(tunnel_floor)
        ours.apply(Service(name="one", ports=(port,), backends=("web",)))
        service = ours.service("one").address
        web, server = str(ours.pod("web").address), str(ours.pod("server").address)
        report.beside(
            "One node: round trip on one CPU",
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
            "A service: round trip on one CPU",
            "us",
            {
                "direct": lambda: trips(ours, "web", web),
                "ClusterIP": lambda: trips(ours, "web", service, 80),
            },
            {"ClusterIP": 1.05},
        )
        report.beside(
            "Two nodes: round trip on one CPU",
            "us",
            {
                "kernel bridge and VXLAN": lambda: trips(plain, "server", overlay),
                "floor of the tunnel": lambda: trips(tunnel_floor, "server", server),
                "pod to pod, tunnel": lambda: trips(ours, "server", server),
                "pod to pod, tunnel, host routing": lambda: trips(tunnel, "server", server),
                "pod to pod, native": lambda: trips(native, "server", server),
                "pod to pod, native, host routing": lambda: trips(short, "server", server),
            },
            {"pod to pod, tunnel, host routing": 1.0},
            rounds=2 * ROUNDS,
        )
        report.beside(
            "One node, MTU 1500: one stream",
            "Gbit/s",
            {
                "bare veth pair": lambda: stream(plain, "web", bare),
                "floor of legacy routing": lambda: stream(floor, "web", web),
                "pod to pod": lambda: stream(native, "web", web),
                "pod to pod, host routing": lambda: stream(short, "web", web),
            },
            {"pod to pod, host routing": SAME_MTU_STREAM},
            at_least=True,
        )
        report.beside(
            "Two nodes, MTU 1450: one stream",
            "Gbit/s",
            {
                "kernel bridge and VXLAN": lambda: stream(plain, "server", overlay),
                "floor of the tunnel": lambda: stream(tunnel_floor, "server", server),
                "pod to pod, tunnel": lambda: stream(ours, "server", server),
                "pod to pod, tunnel, host routing": lambda: stream(tunnel, "server", server),
            },
            {"pod to pod, tunnel, host routing": SAME_MTU_TUNNEL},
            at_least=True,
        )


def measure_programs(report: Report) -> None:
    """One packet in the programs alone: no device, no socket, no wake-up."""
    report.programs, report.tables = programs(), tables()
    say("\nOne packet through one hook and its tail calls, policy on")
    for one in report.programs:
        say(f"  {one}")
    say("\nThe same against the size of a table")
    for table in report.tables:
        say(f"  {table}")


def grow_policy(report: Report) -> None:
    """A policy map that gets fuller."""
    title = "A round trip, by number of policy entries"
    report.grow(title, "policy", "policy entries, or rules of netfilter", _growth.policy())


def grow_conntrack(report: Report) -> None:
    """A conntrack table that gets fuller."""
    title = "A round trip, by number of other flows"
    report.grow(title, "conntrack", "conntrack entries", _growth.conntrack())


def grow_services(report: Report) -> None:
    """More and more services."""
    title = "Opening a connection, by number of services"
    report.grow(title, "services", "services", _growth.services())


PARTS = {
    "paths": compare_paths,
    "programs": measure_programs,
    "policy": grow_policy,
    "conntrack": grow_conntrack,
    "services": grow_services,
}


def main(names: list[str]) -> None:
    """Measure the named parts, or all; tell them as asked and draw them where asked."""
    report = Report()
    for name in names or PARTS:
        PARTS[name](report)
    if OUTPUT is Format.JSON:
        print_json(report)
    if PLOTS:
        report.draw(Path(PLOTS))


if __name__ == "__main__":
    main(sys.argv[1:])
