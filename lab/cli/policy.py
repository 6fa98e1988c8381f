"""``lab policy``: the truth table, why a flow passes or not, and what a change would do."""

from __future__ import annotations

import contextlib
import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.output import Format, OutputOption, as_json, print_json
from lab.errors import InputError
from lab.k8s import matrix as tables
from lab.k8s.explain import Explanation, Side, explain
from lab.k8s.live import open_world, prepare
from lab.k8s.matrix import Cell, Matrix, PortNumber, changes, parse_ports
from lab.k8s.place import World
from lab.k8s.pods import lab_name, listeners_by_pod
from lab.k8s.read import SUFFIXES, read_files
from lab.k8s.state import load
from lab.policy.objects import Semantics
from lab.report import matrix as report
from lab.runtime import Lab

app = typer.Typer(no_args_is_help=True, help="Network policy: truth table, reasons, changes.")

PortsOption = Annotated[
    str, typer.Option("--ports", help="80,53/udp,8/icmp; by default every port somebody serves.")
]
SemanticsOption = Annotated[
    Semantics | None, typer.Option("--semantics", help="k8s or cilium, where they differ.")
]


class MatrixFormat(StrEnum):
    """What ``lab policy matrix -o`` accepts."""

    TABLE = "table"
    JSON = "json"
    HTML = "html"
    SVG = "svg"


def world_of(lab: Lab) -> World:
    """Return the manifests of a running lab, placed as they are."""
    from lab.k8s.live import settled

    return load(lab).world(settled(lab))


def ports_of(world: World, asked: str) -> tuple[PortNumber, ...]:
    """Return the ports asked for, else every port that a pod serves, else 80."""
    if asked:
        return parse_ports(asked)
    served = {
        PortNumber(item.protocol, item.port)
        for listeners in listeners_by_pod(world.pods).values()
        for item in listeners
    }
    return tuple(sorted(served, key=lambda p: (p.number, p.protocol))) or (PortNumber("tcp", 80),)


@app.command("matrix")
def matrix_command(
    lab_or_manifests: Annotated[
        list[str], typer.Argument(metavar="LAB | MANIFEST...", help="A lab that is up, or files.")
    ],
    ports: PortsOption = "",
    pods: Annotated[
        list[str] | None, typer.Option("--pod", help="Only these (again and again).")
    ] = None,
    expected_only: Annotated[
        bool, typer.Option("--expected", help="Ask the model only; send nothing.")
    ] = False,
    semantics: SemanticsOption = None,
    output: Annotated[
        MatrixFormat, typer.Option("-o", "--output", help="table, json, html or svg.")
    ] = MatrixFormat.TABLE,
) -> int:
    """Who reaches whom: every pod and the world outside, expected and measured.

    Exit 1 if the datapath did something else than the model says.
    """
    started = time.monotonic()
    world, lab, meant = _subject(lab_or_manifests, semantics)
    wanted = ports_of(world, ports)
    found = tables.expected(world.cluster, world.objects.policies, wanted, meant, names=pods or ())
    if lab is not None and not expected_only:
        # a lab of a topology has no way for outsiders to pods themselves; the table asks for both
        open_world(lab)
        places = {name: lab.place(lab_name(name)) for name in found.names}
        found = tables.measured(found, world.cluster, places)
    _print_matrix(found, output, world.topology.name, time.monotonic() - started)
    if lab is not None:
        lab.close()
    return 1 if found.differences else 0


def _subject(words: list[str], semantics: Semantics | None) -> tuple[World, Lab | None, Semantics]:
    if any(Path(word).suffix in SUFFIXES or Path(word).is_dir() for word in words):
        meant = semantics or Semantics.K8S
        return prepare(read_files(words), name="manifests", semantics=meant), None, meant
    if len(words) != 1:
        raise InputError("name one lab, or manifests", hint="lab ls")
    lab = Lab.attach(words[0])
    return world_of(lab), lab, semantics or load(lab).semantics


def _print_matrix(matrix: Matrix, output: MatrixFormat, name: str, seconds: float) -> None:
    match output:
        case MatrixFormat.JSON:
            print_json([cell.as_row() for cell in matrix.cells])
        case MatrixFormat.HTML:
            typer.echo(report.page(matrix, f"Who reaches whom in {name}"))
        case MatrixFormat.SVG:
            typer.echo(report.svg(matrix))
        case MatrixFormat.TABLE:
            typer.echo(report.text(matrix))
            typer.echo(f"{len(matrix.cells)} flows in {seconds:.1f} s")


@app.command("explain")
def explain_command(
    lab_or_manifest: Annotated[str, typer.Argument(metavar="LAB | MANIFEST")],
    source: Annotated[str, typer.Argument(metavar="FROM", help="pod, NAMESPACE/POD or world")],
    destination: Annotated[str, typer.Argument(metavar="TO")],
    tcp: Annotated[int | None, typer.Option("--tcp", min=1, max=65535)] = None,
    udp: Annotated[int | None, typer.Option("--udp", min=1, max=65535)] = None,
    sctp: Annotated[int | None, typer.Option("--sctp", min=1, max=65535)] = None,
    icmp: Annotated[int | None, typer.Option("--icmp", min=0, max=255, help="ICMP type")] = None,
    semantics: SemanticsOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Name the rules and the map entries that decide about one flow."""
    given = [
        PortNumber(name, number)
        for name, number in (("tcp", tcp), ("udp", udp), ("sctp", sctp), ("icmp", icmp))
        if number is not None
    ]
    if len(given) > 1:
        raise InputError("one flow has one protocol", hint="give one of --tcp --udp --sctp --icmp")
    port = given[0] if given else PortNumber("tcp", 80)
    world, lab, meant = _subject([lab_or_manifest], semantics)
    found = explain(world, source, destination, port, semantics=meant, lab=lab)
    if output is Format.JSON:
        print_json(_explanation_row(found))
    else:
        typer.echo(_explanation_text(found))


def _explanation_row(found: Explanation) -> dict[str, object]:
    return {
        "from": found.source,
        "to": found.destination,
        "port": found.port.number,
        "protocol": found.port.protocol,
        "expected": "allow" if found.verdict.allowed else "deny",
        "reason": found.verdict.reason,
        "rules": list(found.verdict.because),
        "entries": [
            {
                "direction": side.direction.value,
                "pod": side.pod,
                "identity": side.identity,
                "entry": str(side.key) if side.key else None,
                "key": side.key.pack().hex() if side.key else None,
                "reason": side.reason,
                "rules": list(side.origins),
                "installed": side.installed,
                "packets": side.packets,
            }
            for side in found.sides
        ],
    }


_REASONS = {0: "allowed", 133: "denied, 133 DROP_POLICY", 181: "denied, 181 DROP_POLICY_DENY"}


def _explanation_text(found: Explanation) -> str:
    word = _REASONS[found.verdict.reason]
    lines = [f"{found.source} -> {found.destination} {found.port}: {word}"]
    if found.verdict.direction:
        lines[0] += f" at {found.verdict.direction.value}"
    lines += [f"  because of {rule}" for rule in found.verdict.because]
    for side in found.sides:
        lines += _side_lines(side)
    return "\n".join(lines)


def _side_lines(side: Side) -> list[str]:
    head = f"  {side.direction.value} of {side.pod}, other side has identity {side.identity}: "
    if side.key is None:
        return [head + _REASONS[side.reason] + ", no entry matches", *_isolating(side)]
    lines = [
        head + _REASONS[side.reason],
        f"    entry {side.key}  (key {side.key.pack().hex(' ')})",
    ]
    if side.installed is not None:
        state = "in the map" if side.installed else "NOT in the map as compiled"
        lines.append(f"    {state}, {side.packets} packets so far")
    return lines + [f"    from {origin}" for origin in side.origins]


def _isolating(side: Side) -> list[str]:
    return [f"    isolated by {origin}" for origin in side.origins]


@app.command("diff")
def diff_command(
    before: Annotated[str, typer.Argument(help="Manifests, a folder of them, a lab, or a table")],
    after: Annotated[str, typer.Argument(help="the same")],
    ports: PortsOption = "",
    semantics: SemanticsOption = None,
    output: OutputOption = Format.TABLE,
) -> int:
    """Show which flows a change allows or denies: between manifests, labs, or saved tables.

    A table is what `lab policy matrix -o json` printed. Exit 1 if anything differs.
    """
    sides = [_side_of_diff(word, semantics) for word in (before, after)]
    wanted = tuple(
        dict.fromkeys(
            port for side, _ in sides if isinstance(side, World) for port in ports_of(side, ports)
        )
    )
    found = [
        side
        if isinstance(side, Matrix)
        else tables.expected(side.cluster, side.objects.policies, wanted, meant)
        for side, meant in sides
    ]
    differing = changes(found[0], found[1])
    if output is Format.JSON:
        typer.echo(
            as_json(
                [
                    {
                        "from": change.source,
                        "to": change.destination,
                        "port": change.port.number,
                        "protocol": change.port.protocol,
                        "before": change.before,
                        "after": change.after,
                    }
                    for change in differing
                ]
            )
        )
    else:
        typer.echo(report.change_text(differing))
    return 1 if differing else 0


def _side_of_diff(word: str, semantics: Semantics | None) -> tuple[World | Matrix, Semantics]:
    path = Path(word)
    if path.suffix == ".json" and path.is_file():
        # a manifest may be JSON too; what is neither is refused by its reader, with the place
        with contextlib.suppress(json.JSONDecodeError):
            if isinstance(rows := json.loads(path.read_text()), list):
                # its flows were judged when it was saved
                return _saved(rows, word), Semantics.K8S
    world, _, meant = _subject([word], semantics)
    return world, meant


def _saved(rows: list[dict[str, object]], word: str) -> Matrix:
    try:
        cells = tuple(
            Cell(
                str(row["from"]),
                str(row["to"]),
                PortNumber(str(row["protocol"]), int(str(row["port"]))),
                str(row["expected"]),
                0,
            )
            for row in rows
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{word} is no truth table ({error})", hint="write one with lab policy matrix -o json"
        ) from None
    names = tuple(dict.fromkeys(name for cell in cells for name in (cell.source, cell.destination)))
    return Matrix(names, tuple(dict.fromkeys(cell.port for cell in cells)), cells)
