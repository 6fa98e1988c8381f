"""``lab plan``: what a topology would do to the kernel, as command lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import SetOption, changed_options
from lab.cli.output import Format, OutputOption, print_json

app = typer.Typer()


@app.command()
def plan_command(
    topology: Annotated[Path, typer.Argument(help="Topology file, e.g. topologies/two_nodes.py")],
    settings: SetOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Print the steps as ip, tc and bpftool lines; changes nothing and needs no root."""
    from lab.datapath.render import commands
    from lab.plan import plan
    from lab.plan.steps import to_json
    from lab.runtime.start import compiled_objects
    from lab.scenarios import load_topology

    described = load_topology(topology)
    changed = described.options.with_words(changed_options(settings))
    described = replace(described, options=changed)
    paths = {name: Path(path) for name, path in compiled_objects(described).items()}
    steps = plan(described)
    if output is Format.JSON:
        print_json([{**to_json(step), "commands": commands(step, paths)} for step in steps])
        return
    for step in steps:
        for line in commands(step, paths):
            typer.echo(line)
