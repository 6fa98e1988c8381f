"""The lab a command is about, and its answers as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.output import Format, console, print_json
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.runtime import Lab

LabOption = Annotated[
    str, typer.Option("--lab", "-l", help="Name of the lab; not needed while only one is up.")
]
NodeOption = Annotated[str, typer.Option("--node", "-n", help="Only this node.")]


@contextmanager
def running(name: str) -> Iterator[Lab]:
    """Yield the lab called ``name``, or the only one there is.

    Raises:
        InputError: no such lab, or several and none is named.
    """
    from lab.runtime import Lab, registry

    if not name:
        names = [record.name for record in registry.labs()]
        if len(names) != 1:
            known = ", ".join(names) or "none; start one with `lab up`"
            raise InputError("say which lab: --lab NAME", hint=f"labs that are up: {known}")
        name = names[0]
    lab = Lab.attach(name)
    try:
        yield lab
    finally:
        lab.close()


def show(
    output: Format, items: Sequence[object], headings: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Print items as JSON, or their rows as a table."""
    if output is Format.JSON:
        print_json(list(items))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    console().print(table)
