"""``lab trace``: send one packet on purpose, or follow others', and show its whole way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.lifecycle import split_target
from lab.cli.output import Format, OutputOption, console
from lab.errors import InputError
from lab.runtime import Lab
from lab.trace import Trace

app = typer.Typer()


@app.command()
def trace_command(
    sender: Annotated[str, typer.Argument(metavar="LAB/FROM", help="Pod, node or world.")],
    receiver: Annotated[str, typer.Argument(metavar="TO", help="Pod, node, world or address.")],
    other: Annotated[
        str, typer.Argument(metavar="[B]", help="`lab trace diff A.json B.json`: compare two.")
    ] = "",
    topology: Annotated[
        Path | None, typer.Option(help="Build this first; then FROM needs no LAB/.")
    ] = None,
    udp: Annotated[bool, typer.Option("--udp", help="One UDP datagram (the default).")] = False,
    tcp: Annotated[bool, typer.Option("--tcp", help="A TCP connection with one segment.")] = False,
    icmp: Annotated[bool, typer.Option("--icmp", help="One ICMP echo request.")] = False,
    dport: Annotated[int, typer.Option(min=1, max=65535, help="Destination port.")] = 5000,
    payload: Annotated[str, typer.Option(help="Text carried in front of the cookie.")] = "hello",
    no_listen: Annotated[bool, typer.Option("--no-listen", help="Open no receiver.")] = False,
    probe: Annotated[
        list[Path] | None, typer.Option(help="A bcc probe of your own (Python file).")
    ] = None,
    pcapng: Annotated[Path | None, typer.Option(help="Write a capture for Wireshark.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that plays the trace.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a figure: where the time goes.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Follow one packet hook by hook through nodes, tunnel and datapath to the socket.

    Exit code 1 if the packet did not arrive or events were lost.
    """
    if sender == "diff":
        from lab.cli.tracediff import compare

        compare(receiver, other, html=html, output=output)
        return
    if other:
        raise InputError(f"one argument too many: {other!r}", hint="lab trace LAB/FROM TO")
    protocol = _protocol(udp=udp, tcp=tcp, icmp=icmp)
    with opened_lab(sender, topology) as (lab, place), probing(lab, probe or ()):
        recording = lab.follow(
            place,
            receiver.removeprefix(f"{lab.name}/"),
            protocol=protocol,
            port=dport,
            payload=payload.encode(),
            listen=not no_listen,
        )
    trace = recording.packets[0]
    write_files(trace, pcapng=pcapng)
    if html is not None:
        from lab.report.html import write_page

        write_page(recording.packets, html, lab.topology)
    if plot is not None:
        from lab.plot.latency import write_latency

        write_latency(trace, plot)
    show(trace, output)
    if trace.lost or trace.drops:
        raise typer.Exit(1)


def show(trace: Trace, output: Format) -> None:
    """Print a trace as the ladder or as JSON."""
    if output is Format.JSON:
        typer.echo(trace.to_json(indent=1))
        return
    from lab.report.ladder import print_ladder

    print_ladder(trace, console())


def write_files(trace: Trace, *, pcapng: Path | None) -> None:
    """Write the files asked for.

    Raises:
        InputError: a file cannot be written.
    """
    try:
        if pcapng is not None:
            from lab.observe.capture import write_pcapng

            write_pcapng(trace, pcapng)
    except OSError as error:
        raise InputError(
            f"cannot write {error.filename}: {error.strerror}", hint="choose another place"
        ) from error


def _protocol(**asked: bool) -> str:
    names = [name for name, wanted in asked.items() if wanted]
    if len(names) > 1:
        raise InputError(
            f"--{' and --'.join(names)} exclude each other", hint="one packet has one protocol"
        )
    return names[0] if names else "udp"


@contextmanager
def probing(lab: Lab, files: Iterable[Path]) -> Iterator[None]:
    """Run probes of the user's own while the block runs; say what is to be known of them."""
    with ExitStack() as stack:
        for file in files:
            own = stack.enter_context(lab.probe(file))
            if own.note:
                typer.echo(f"lab trace: {own.note}", err=True)
        yield


@contextmanager
def opened_lab(sender: str, topology: Path | None) -> Iterator[tuple[Lab, str]]:
    """Yield the lab and the name of the sending place in it."""
    if topology is None:
        name, place = split_target(sender)
        lab = Lab.attach(name)
        try:
            yield lab, place
        finally:
            lab.close()
        return
    from lab.scenarios import load_topology

    with Lab(load_topology(topology)) as lab:
        yield lab, sender.rpartition("/")[2] if "/" in sender else sender
