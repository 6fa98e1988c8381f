"""``lab mn``: a topology at Mininet's own prompt."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def mn_command(
    topology: Annotated[Path, typer.Argument(help="Topology file, e.g. topologies/two_nodes.py")],
    name: Annotated[str, typer.Option(help="Name of the lab; the topology's by default.")] = "",
) -> None:
    """Open a lab at the `mininet>` prompt: pods are hosts, `client ping server` works.

    The lab ends with the prompt.
    """
    from lab.cli.lifecycle import progress_bar
    from lab.runtime.start import start
    from lab.scenarios import load_topology

    described = load_topology(topology)
    with progress_bar("building with Mininet") as progress:
        keeper = start(
            described,
            name=name or f"{described.name}-mn-{os.getpid()}",
            engine="mininet",
            progress=progress,
            terminal=(0, 1, 2),
        )
    pidfd = os.pidfd_open(keeper.record.pid)
    # Ctrl-C is for the command at the prompt, which runs in another session: it is passed on.
    signal.signal(signal.SIGINT, lambda *_: keeper.ask(op="interrupt"))
    try:
        # it is readable once the keeper has ended, and with it the prompt
        while not select.select([pidfd], [], [], None)[0]:
            pass
    finally:
        os.close(pidfd)
        keeper.stop()
