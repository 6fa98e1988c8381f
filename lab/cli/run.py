"""``lab run``: run scenarios and say which of their sentences hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.lifecycle import EngineOption, check_engine
from lab.cli.output import Format, OutputOption, print_json
from lab.scenarios import Report, load_scenarios

app = typer.Typer()


@app.command()
def run_command(
    paths: Annotated[list[str], typer.Argument(help="Scenario files or folders.")],
    engine: EngineOption = "netns",
    repeat: Annotated[int, typer.Option(min=1, help="Run each so many times.")] = 1,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for pictures and captures of TCP experiments.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> int:
    """Run scenarios, each in a fresh lab; exit 0 if every sentence holds.

    Exit 1 if one does not, 3 if the only reason is that this kernel cannot do something.
    """
    scenarios = load_scenarios(paths)
    check_engine(engine)
    reports: list[Report] = []
    for scenario in scenarios:
        for _ in range(repeat):
            report = scenario.run(engine=engine)
            reports.append(report)
            if pictures is not None:
                _draw(report, pictures)
            if output is Format.TABLE:
                _print(report)
    if output is Format.JSON:
        print_json([_row(report) for report in reports])
    else:
        failed = [report for report in reports if not report.passed]
        typer.echo(f"{len(reports) - len(failed)} passed, {len(failed)} failed")
    return exit_code(reports)


def _draw(report: Report, folder: Path) -> None:
    """Leave the pictures of a report (SVG, PNG, text) and one capture per recording."""
    from lab.plot import tcp
    from lab.wire.capture import save

    for picture in report.pictures:
        tcp.save(picture, folder, report.scenario)
    if report.pictures:
        save(report.pictures[-1].recording, folder / f"{report.scenario}.pcapng")


def exit_code(reports: list[Report]) -> int:
    """Return 0 if all passed, 3 if the others are only unsupported here, else 1."""
    failed = [report for report in reports if not report.passed]
    if not failed:
        return 0
    return 3 if all(report.unsupported for report in failed) else 1


def _row(report: Report) -> dict[str, object]:
    row: dict[str, object] = {
        "scenario": report.scenario,
        "passed": report.passed,
        "seconds": round(report.seconds, 3),
        "checks": [{"statement": check.statement, "holds": check.holds} for check in report.checks],
    }
    if report.error:
        row["error"] = report.error
    return row


def _print(report: Report) -> None:
    mark = typer.style("ok  ", fg="green") if report.passed else typer.style("FAIL", fg="red")
    typer.echo(f"{mark} {report.scenario}: {report.claim} ({report.seconds:.2f} s)")
    for check in report.checks:
        sign = "  ✓" if check.holds else "  ✗"
        detail = f"  [{check.detail}]" if check.detail and not check.holds else ""
        typer.echo(f"  {sign} {check.statement}{detail}")
    if report.error:
        typer.echo(f"    ! {report.error}")
