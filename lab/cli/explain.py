"""``lab explain NAME``: what a hook, tail call, map, drop reason or step is."""

from __future__ import annotations

import shutil
import textwrap
from typing import Annotated

import typer

from lab.cli import explanations
from lab.cli.output import Format, OutputOption, print_json

app = typer.Typer()

_WIDTH = 100
_KINDS = ("hook", "tail call", "map", "drop reason", "trace point", "step", "evidence", "word")


@app.command()
def explain(
    name: Annotated[
        list[str] | None,
        typer.Argument(help="A hook, map, drop reason (name or number), step (1-19), ..."),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Say in a paragraph what NAME is and where it is written; without NAME list all names."""
    if not name:
        _list_all(output)
        return
    found = explanations.find(" ".join(name))
    if output is Format.JSON:
        print_json(found)
        return
    for position, entry in enumerate(found):
        typer.echo(("\n" if position else "") + as_text(entry))


def as_text(entry: explanations.Entry) -> str:
    """Return one explanation as lines of at most 100 columns."""
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    number = f" {entry.number}" if entry.number and entry.kind != "tail call" else ""
    head = typer.style(entry.name, bold=True) + f"  ({entry.kind}{number})"
    lines = [f"{head}  {entry.title}".rstrip()]
    if entry.where:
        lines.append(f"  at   {entry.where}")
    lines += textwrap.wrap(entry.text, width, initial_indent="  ", subsequent_indent="  ")
    for label, items in (("in", entry.sources), ("see", entry.see)):
        indent = f"  {label:<4} "
        lines += textwrap.wrap(
            "  ".join(items), width, initial_indent=indent, subsequent_indent=" " * len(indent)
        )
    return "\n".join(lines)


def _list_all(output: Format) -> None:
    if output is Format.JSON:
        print_json(explanations.entries())
        return
    for kind in _KINDS:
        names = [
            f"{entry.number} {entry.name}" if kind in ("step", "drop reason") else entry.name
            for entry in explanations.entries()
            if entry.kind == kind
        ]
        typer.echo(typer.style(f"{kind}", bold=True))
        typer.echo(
            textwrap.fill("  ".join(names), _WIDTH, initial_indent="  ", subsequent_indent="  ")
        )
