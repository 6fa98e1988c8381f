"""``lab monitor``: what the datapath tells, as it happens."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.bpf import find_pod
from lab.cli.chosen import NodeOption, running
from lab.cli.output import Format, OutputOption
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.datapath.events import Event
    from lab.observe.monitor import Heard, Monitor

app = typer.Typer()
_WAIT_MS = 1000


@app.command()
def monitor_command(
    name: Annotated[str, typer.Argument(help="Name of the lab; not needed while one is up.")] = "",
    node: NodeOption = "",
    types: Annotated[
        list[str] | None,
        typer.Option("--type", "-t", help="drop, trace, policy-verdict, debug or capture."),
    ] = None,
    related_to: Annotated[
        str, typer.Option("--related-to", help="Only events of one pod or endpoint id.")
    ] = "",
    hexadecimal: Annotated[bool, typer.Option("--hex", help="Print the packet's bytes.")] = False,
    count: Annotated[int, typer.Option("--count", "-c", help="End after so many events.")] = 0,
    output: OutputOption = Format.TABLE,
) -> None:
    """Print drops, traces and policy verdicts of all nodes until interrupted.

    With `-o json` every line is one JSON object.
    """
    from lab.observe import monitor
    from lab.runtime import registry

    kinds = tuple(_kind(word) for word in types or monitor.TYPES)
    with running(name) as lab:
        endpoint = find_pod(lab, related_to).endpoint_id if related_to else 0
        nodes = [lab.facts.node(node)] if node else list(lab.facts.nodes)
        names = [one.name for one in nodes]

        def wanted(event: Event) -> bool:
            right = isinstance(event, kinds)
            return right and (not endpoint or monitor.concerns(event, endpoint))

        with monitor.Monitor(lab, names, registry.run_dir() / lab.name) as rings:
            typer.echo(monitor.greeting(), err=True)
            for one in _until_interrupted(rings, wanted, count):
                if output is Format.JSON:
                    typer.echo(_json(one))
                    continue
                typer.echo(f"{one.node}: {monitor.line(one, lab.facts)}")
                if hexadecimal:
                    typer.echo(one.event.packet.hex(" "))
            if rings.lost:
                typer.echo(f"{rings.lost} events were lost: the rings were full", err=True)


def _until_interrupted(
    rings: Monitor, wanted: Callable[[Event], bool], count: int
) -> Iterator[Heard]:
    """Yield wanted events, ``count`` of them if not 0, until Ctrl-C."""
    given = 0
    try:
        while True:
            # not for ever: Ctrl-C is noticed between two waits
            for one in rings.read(wait_ms=_WAIT_MS):
                if wanted(one.event):
                    yield one
                    given += 1
                    if given == count:
                        return
    except KeyboardInterrupt:
        typer.echo("", err=True)


def _kind(word: str) -> type[Event]:
    from lab.observe.monitor import TYPES

    if word not in TYPES:
        raise InputError(f"there are no events of type {word!r}", hint=f"known: {', '.join(TYPES)}")
    return TYPES[word]


def _json(one: Heard) -> str:
    kind = type(one.event).__name__.removesuffix("Event")
    fields = {"node": one.node, "type": kind, **dataclasses.asdict(one.event)}
    return json.dumps(fields, default=lambda v: v.hex() if isinstance(v, bytes) else str(v))
