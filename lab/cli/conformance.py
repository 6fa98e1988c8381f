"""``lab conformance``: Cilium's connectivity tests, by name, on a lab of their own."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli.output import Format, OutputOption, print_json
from lab.k8s.conformance.runner import FAILED, PASSED, SKIPPED, CaseResult, run

app = typer.Typer()

_MARKS = {PASSED: "✓", FAILED: "✗", SKIPPED: "·"}


@app.command()
def conformance_command(
    names: Annotated[list[str] | None, typer.Argument(help="Only these cases.")] = None,
    engine: Annotated[str, typer.Option(help="netns or mininet")] = "netns",
    output: OutputOption = Format.TABLE,
) -> int:
    """Run Cilium's connectivity tests by name: pass, fail, or not applicable with the reason.

    Exit 1 if one fails.
    """
    results: list[CaseResult] = []
    for result in run(tuple(names or ()), engine=engine):
        results.append(result)
        if output is Format.TABLE:
            _print(result)
    if output is Format.JSON:
        print_json(
            [
                {
                    "test": result.name,
                    "result": result.outcome,
                    "details": list(result.details),
                    "seconds": round(result.seconds, 3),
                }
                for result in results
            ]
        )
    else:
        counts = [sum(r.outcome == word for r in results) for word in (PASSED, FAILED, SKIPPED)]
        typer.echo(f"{counts[0]} passed, {counts[1]} failed, {counts[2]} not applicable")
    return 1 if any(result.outcome == FAILED for result in results) else 0


def _print(result: CaseResult) -> None:
    line = f"{_MARKS[result.outcome]} {result.name}"
    if result.outcome == SKIPPED:
        line += f": {result.details[0]}"
    typer.echo(line)
    if result.outcome == FAILED:
        for detail in result.details:
            typer.echo(f"    {detail}")
