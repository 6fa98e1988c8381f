"""``lab bench``: the benchmarks of ``tests/bench``, which print figures and assert nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.output import Format, OutputOption
from lab.errors import InputError
from lab.kernel import process
from lab.names import did_you_mean

app = typer.Typer()

ROOT = Path(__file__).resolve().parents[2]


@app.command()
def bench_command(
    names: Annotated[list[str] | None, typer.Argument(help="bring_up, tracing, …")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each measurement.")] = 7,
    plot: Annotated[
        Path | None, typer.Option(help="Write figures into this folder (datapath).")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> int:
    """Run benchmarks one after the other; run them alone on the machine.

    Without a name, all of them. While `datapath` runs, standard error tells what is measured and
    how long the rest takes; Ctrl-C ends it with what whole rounds have told.
    """
    known = {path.stem: path for path in sorted((ROOT / "tests" / "bench").glob("[a-z]*.py"))}
    for name in names or ():
        if name not in known:
            raise InputError(f"no benchmark is called {name!r}", hint=did_you_mean(name, known))
    environment = {
        **os.environ,
        "LAB_BENCH_ROUNDS": str(rounds),
        "LAB_BENCH_PLOT": str(plot.resolve()) if plot else "",
        "LAB_BENCH_OUTPUT": str(output),
        # a script finds its own folder first, not the package that it measures
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    codes = [
        process.call([sys.executable, str(known[name])], env=environment, cwd=ROOT)
        for name in names or known
    ]
    return max(codes, default=0)
