"""``lab why``: one packet, one paragraph: where it was dropped, by what, and what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.output import Format, OutputOption, print_json
from lab.cli.trace import opened_lab

app = typer.Typer()

PortOption = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Destination port of this protocol.")
]


@app.command()
def why_command(
    sender: Annotated[str, typer.Argument(metavar="LAB/FROM", help="Pod, node or world.")],
    receiver: Annotated[str, typer.Argument(metavar="TO", help="Pod, node, world or address.")],
    topology: Annotated[Path | None, typer.Option(help="Build this first.")] = None,
    tcp: PortOption = None,
    udp: PortOption = None,
    icmp: Annotated[bool, typer.Option("--icmp", help="An echo request.")] = False,
    listen: Annotated[bool, typer.Option("--listen", help="Open a receiver first.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Say why a packet does not arrive. Exit code 0 if it does, 1 if it does not."""
    from lab.errors import InputError
    from lab.observe.recording import Shot
    from lab.observe.why import why

    asked = [name for name, wanted in (("tcp", tcp), ("udp", udp), ("icmp", icmp)) if wanted]
    if len(asked) != 1:
        raise InputError(
            "say what to send: one of --tcp PORT, --udp PORT, --icmp",
            hint="lab why LAB/FROM TO --tcp 80",
        )
    shot = Shot(protocol=asked[0], port=tcp or udp or 1, listen=listen)
    with opened_lab(sender, topology) as (lab, place):
        answer = why(lab, place, receiver.removeprefix(f"{lab.name}/"), shot)
    if output is Format.JSON:
        print_json(
            {
                "arrived": answer.arrived,
                "known": answer.known,
                "where": answer.where,
                "cause": answer.cause,
                "entry": answer.entry,
                "change": answer.change,
                "reason": answer.reason,
                "paragraph": answer.paragraph,
            }
        )
    else:
        typer.echo(answer.paragraph)
    if not answer.arrived:
        raise typer.Exit(1)
