"""``lab run``: run scenarios and say which of their sentences hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.lifecycle import EngineOption, check_engine, progress_bar
from lab.cli.output import Format, OutputOption, print_json
from lab.scenarios import Report, load_scenarios
from lab.scenarios.tally import Tally, fingerprint

app = typer.Typer()


@app.command()
def run_command(
    paths: Annotated[list[str], typer.Argument(help="Scenario files or folders.")],
    engine: EngineOption = "netns",
    repeat: Annotated[
        int, typer.Option(min=1, help="Run each so many times; all have to come out the same.")
    ] = 1,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for pictures and captures of TCP experiments.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> int:
    """Run scenarios, each in a fresh lab; exit 0 if every sentence holds.

    Exit 1 if one does not, or if repeated runs come out differently; 3 if the only reason is that
    this kernel cannot do something.
    """
    scenarios = load_scenarios(paths)
    check_engine(engine)
    done: list[Tally] = []
    with progress_bar("running") as progress:
        for number, scenario in enumerate(scenarios):
            runs: list[Report] = []
            for _ in range(repeat):
                report = scenario.run(engine=engine)
                # of the first run only: the others come out the same, or are counted as different
                if pictures is not None and not runs:
                    _draw(report, pictures)
                # recordings are large, and drawn by now
                runs.append(replace(report, pictures=()))
                if progress:
                    progress(number * repeat + len(runs), len(scenarios) * repeat)
            done.append(Tally(tuple(runs)))
            if output is Format.TABLE:
                _print(runs[0]) if repeat == 1 else _print_tally(done[-1])
    reports = [report for tally in done for report in tally.reports]
    if output is Format.JSON:
        print_json([_row(report) for report in reports])
    else:
        _print_sum(done, repeat)
    return exit_code(reports) or int(not all(tally.steady for tally in done))


def _print_sum(done: list[Tally], repeat: int) -> None:
    reports = [report for tally in done for report in tally.reports]
    needing = sum(_only_needs(report) for report in reports)
    failed = sum(not report.passed for report in reports) - needing
    text = f"{len(reports) - failed - needing} passed, {failed} failed"
    if needing:
        text += f", {needing} not shown to the end: they need what this kernel lacks"
    if repeat > 1:
        same = sum(len(tally.outcomes) == 1 for tally in done)
        text += f"; {same} of {len(done)} scenarios came out the same all {repeat} times"
    typer.echo(text)


def _print_tally(tally: Tally) -> None:
    runs = len(tally.reports)
    mark = typer.style("ok  ", fg="green") if tally.steady else typer.style("FAIL", fg="red")
    outcomes = "one outcome" if len(tally.outcomes) == 1 else f"{len(tally.outcomes)} outcomes"
    seconds = sum(report.seconds for report in tally.reports)
    late = max((r.lateness.max_us for r in tally.reports if r.lateness), default=0.0)
    wire = f", wire at most {late / 1e3:.2f} ms late" if late else ""
    typer.echo(
        f"{mark} {tally.scenario}: {tally.held} of {runs} held, {outcomes} ({seconds:.1f} s{wire})"
    )
    for line in tally.broken():
        typer.echo(f"    ✗ {line}")
    for line in tally.differences():
        typer.echo(f"    ≠ {line}")


def _draw(report: Report, folder: Path) -> None:
    """Leave the pictures of a report (SVG, PNG, text), its capture and its table."""
    from lab.plot import tcp
    from lab.wire import table
    from lab.wire.capture import save

    for picture in report.pictures:
        tcp.save(picture, folder, report.scenario)
    if report.pictures:
        save(report.pictures[-1].recording, folder / f"{report.scenario}.pcapng")
        table.save(report.pictures[-1].recording, folder / f"{report.scenario}.csv")


def exit_code(reports: list[Report]) -> int:
    """Return 0 if all passed, 3 if the others are only unsupported here, else 1."""
    failed = [report for report in reports if not report.passed]
    if not failed:
        return 0
    return 3 if all(map(_only_needs, failed)) else 1


def _only_needs(report: Report) -> bool:
    # what was checked before the need was met still counts: a sentence that fell is a failure
    return report.unsupported and all(check.holds for check in report.checks)


def _mark(report: Report) -> str:
    if report.passed:
        return typer.style("ok  ", fg="green")
    if _only_needs(report):
        return typer.style("NEED", fg="yellow")
    return typer.style("FAIL", fg="red")


def _row(report: Report) -> dict[str, object]:
    row: dict[str, object] = {
        "scenario": report.scenario,
        "passed": report.passed,
        "seconds": round(report.seconds, 3),
        "checks": [{"statement": check.statement, "holds": check.holds} for check in report.checks],
    }
    if report.outcome:
        row["outcome"] = fingerprint(report)
    if report.lateness:
        row["late_us"] = {"p50": report.lateness.p50_us, "p99": report.lateness.p99_us,
                          "max": report.lateness.max_us}  # fmt: skip
    if report.error:
        row["error"] = report.error
    return row


def _print(report: Report) -> None:
    late = report.lateness
    wire = (
        f", wire late by {late.p50_us / 1e3:.2f} ms, at most {late.max_us / 1e3:.2f}"
        if late
        else ""
    )
    typer.echo(f"{_mark(report)} {report.scenario}: {report.claim} ({report.seconds:.2f} s{wire})")
    for check in report.checks:
        sign = "  ✓" if check.holds else "  ✗"
        detail = f"  [{check.detail}]" if check.detail and not check.holds else ""
        typer.echo(f"  {sign} {check.statement}{detail}")
    if report.error:
        typer.echo(f"    ! {report.error}")
