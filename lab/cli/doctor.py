"""``lab doctor``: what this machine can do, and what to do where it cannot."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from lab.cli.output import Format, OutputOption, console, print_json
from lab.kernel import probe
from lab.kernel.abilities import Need

app = typer.Typer()

KERNEL_CANNOT = 3
_MARK = {probe.Answer.YES: "[green]yes[/]", probe.Answer.NO: "[red]no[/]"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report: what was asked, the answer, the reason, what to do."""

    ability: str
    title: str
    group: str
    needed: bool
    answer: probe.Answer
    reason: str
    purpose: str
    without: str


@app.command()
def doctor(output: OutputOption = Format.TABLE) -> int:
    """Try what the kernel can load, attach, create, shape and trace, and say what to do.

    Ends with 0 if labs can run here, with 3 if something is missing that every lab needs. Nothing
    is judged by a version; what is tried lives in namespaces that are gone afterwards.
    """
    lines = report()
    if output is Format.JSON:
        print_json(lines)
    else:
        _print_table(lines)
    return KERNEL_CANNOT if probe.missing_requirements() else 0


def report() -> tuple[Line, ...]:
    """Return every answer as a line of the report."""
    return tuple(
        Line(
            ability=found.name,
            title=found.subject.title,
            group=found.subject.group,
            needed=found.subject.need is Need.REQUIRED,
            answer=found.answer,
            reason=found.reason,
            purpose=found.subject.purpose,
            without=_advice(found),
        )
        for found in probe.abilities()
    )


def _advice(found: probe.Ability) -> str:
    # not asked, because only root may try
    if found.answer is probe.Answer.UNKNOWN:
        return "sudo ./lab.sh doctor"
    return found.subject.without if found.answer is probe.Answer.NO else ""


def _print_table(lines: tuple[Line, ...]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("ability", "", "for", "where it is missing"):
        table.add_column(column)
    group = ""
    for line in lines:
        if group and line.group != group:
            table.add_section()
        group = line.group
        star = " *" if line.needed else ""
        missing = f"{line.without} ({line.reason.lower()})" if line.without else ""
        mark = _MARK.get(line.answer, "[yellow]?[/]")
        table.add_row(escape(line.title) + star, mark, escape(line.purpose), escape(missing))
    out = console()
    out.print(table)
    absent = [line.title for line in lines if line.needed and line.answer is not probe.Answer.YES]
    if absent:
        out.print(f"* needed by every lab. Missing here: {escape(', '.join(absent))}")
    else:
        out.print("* needed by every lab: all there. Labs can run on this kernel.")
