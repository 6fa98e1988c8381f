"""``lab trace --follow``: packets that the lab did not send, as they go by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lab.cli.output import Format, console
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.observe.watch import Watch
    from lab.runtime import Lab
    from lab.trace import Trace


def wanted(lab: Lab, words: dict[str, str], where: str) -> str:
    """Return one filter from places, protocol and port given as options, and a filter text.

    Args:
        lab: the places must be its own, or addresses.
        words: field of the filter language -> value; empty values are left out.
        where: filter text, empty for none.

    Raises:
        InputError: a place that the lab does not have.
    """
    parts = []
    for field, value in words.items():
        if field in ("from", "to") and value:
            parts.append(_end(lab, field, value))
        elif value:
            parts.append(f"{field} == {value}")
    if where.strip() and not parts:
        return where
    return " and ".join([*parts, f"({where})"] if where.strip() else parts)


def _end(lab: Lab, field: str, value: str) -> str:
    # an address need be nobody's in the lab
    if value.replace(".", "").isdecimal():
        return f"{'src' if field == 'from' else 'dst'} == {value}"
    return f"{field} == {lab.place(value).name}"


def follow(
    lab: Lab,
    watch: Watch,
    where: str,
    *,
    output: Format,
    pages: dict[str, Path | None],
) -> None:
    """Print what is watched until its end or Ctrl-C; the probes are gone then.

    With JSON every line is one trace. Files are written at the end, with every packet shown.

    Raises:
        InputError: a file cannot be written.
    """
    from lab.cli.trace import write_pages

    kept: list[Trace] = []
    keep = any(pages.values())
    with watch as seen:
        typer.echo("following; Ctrl-C ends it" + (f": {where}" if where else ""), err=True)
        try:
            for trace in seen:
                _show(trace, output)
                if keep:
                    kept.append(trace)
        except KeyboardInterrupt:
            # the terminal has shown ^C: what follows begins on a line of its own
            typer.echo("", err=True)
    typer.echo(_summary(seen), err=True)
    if keep and not kept:
        raise InputError("no packet was seen: no file was written", hint="follow for longer")
    if kept:
        write_pages(lab, tuple(kept), tuple(kept), **pages)
    if seen.lost:
        raise typer.Exit(1)


def _show(trace: Trace, output: Format) -> None:
    if output is Format.JSON:
        typer.echo(trace.to_json())
        return
    from lab.report.brief import brief

    console().print(brief(trace), soft_wrap=True)


def _summary(seen: Watch) -> str:
    lost = f"; {seen.lost} events were lost: packets may be missing" if seen.lost else ""
    return f"{seen.shown} packets shown of {seen.seen} seen{lost}"
