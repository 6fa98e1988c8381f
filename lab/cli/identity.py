"""``lab identity``: which labels have which number."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli.chosen import LabOption, running, show
from lab.cli.output import Format, OutputOption, print_json
from lab.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("list")
def list_command(lab: LabOption = "", output: OutputOption = Format.TABLE) -> None:
    """List security identities: number, labels, and who has them."""
    with running(lab) as live:
        found = live.agent.identities()
    rows = (
        (str(item.id), "\n".join(item.labels), "\n".join((*item.pods, *item.networks)))
        for item in found
    )
    show(output, found, ("ID", "LABELS", "HAD BY"), rows)


@app.command("get")
def get_command(
    number: Annotated[int, typer.Argument(help="Number of the identity.")], lab: LabOption = ""
) -> None:
    """Print one identity as JSON."""
    with running(lab) as live:
        found = [item for item in live.agent.identities() if item.id == number]
    if not found:
        raise InputError(f"there is no identity {number}", hint="lab identity list")
    print_json(found[0])
