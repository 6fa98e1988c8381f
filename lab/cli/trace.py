"""``lab trace``: send one packet on purpose, or follow others', and show its whole way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.lifecycle import split_target
from lab.cli.output import Format, OutputOption, console
from lab.errors import CheckFailed, InputError
from lab.runtime import Lab
from lab.trace import Trace, Witness

if TYPE_CHECKING:
    from lab.observe.recording import Recording, Shot

app = typer.Typer()
_PORT = 5000


_Sender = Annotated[
    str, typer.Argument(metavar="LAB/FROM", help="Pod, node or world; LAB with --follow.")
]
_Receiver = Annotated[str, typer.Argument(metavar="TO", help="Pod, node, world or address.")]
_Other = Annotated[
    str, typer.Argument(metavar="[B]", help="`lab trace diff A.json B.json`: compare two.")
]
_Topology = Annotated[Path | None, typer.Option(help="Build this first; then FROM needs no LAB/.")]
_Udp = Annotated[bool, typer.Option("--udp", help="One UDP datagram (the default).")]
_Tcp = Annotated[bool, typer.Option("--tcp", help="A TCP connection with one segment.")]
_Icmp = Annotated[bool, typer.Option("--icmp", help="One ICMP echo request.")]
_Dport = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Destination port [default: 5000].")
]
_Payload = Annotated[str, typer.Option(help="Text carried in front of the cookie.")]
_At = Annotated[
    str, typer.Option(help="Begin at HOOK, HOOK@PLACE or PLACE/DEVICE, not at FROM's socket.")
]
_NoListen = Annotated[bool, typer.Option("--no-listen", help="Open no receiver.")]
_Probes = Annotated[list[Path] | None, typer.Option(help="A bcc probe of your own (Python file).")]
_Follow = Annotated[
    bool, typer.Option("--follow", help="Send nothing: show others' packets until Ctrl-C.")
]
_Where = Annotated[
    str, typer.Option("--filter", help="Only packets of which this is true; see below.")
]
_Count = Annotated[int, typer.Option(min=0, help="--follow: end after so many packets.")]
_Duration = Annotated[
    float | None, typer.Option(min=0.0, help="--follow: end after so many seconds.")
]
_Light = Annotated[
    bool, typer.Option("--light", help="--follow: fewer probes, no stacks; many packets.")
]
_Witness = Annotated[
    Witness | None,
    typer.Option(help="Who watches; the default is the best that this kernel offers."),
]
_Pcapng = Annotated[Path | None, typer.Option(help="Write a capture for Wireshark.")]
_Html = Annotated[Path | None, typer.Option(help="Write a page that plays the trace.")]
_Svg = Annotated[Path | None, typer.Option(help="Write a drawing of the way.")]
_Plot = Annotated[Path | None, typer.Option(help="Write a figure: where the time goes.")]


@app.command()
def trace_command(
    sender: _Sender = "",
    receiver: _Receiver = "",
    other: _Other = "",
    topology: _Topology = None,
    udp: _Udp = False,
    tcp: _Tcp = False,
    icmp: _Icmp = False,
    dport: _Dport = None,
    payload: _Payload = "hello",
    at: _At = "",
    no_listen: _NoListen = False,
    probe: _Probes = None,
    follow: _Follow = False,
    where: _Where = "",
    count: _Count = 0,
    duration: _Duration = None,
    light: _Light = False,
    witness: _Witness = None,
    pcapng: _Pcapng = None,
    html: _Html = None,
    svg: _Svg = None,
    plot: _Plot = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Follow one packet hook by hook through nodes, tunnel and datapath to the socket.

    Exit code 1 if the packet did not arrive, events were lost or two witnesses contradict each
    other; 3 if this kernel cannot give the witness asked for.

    A filter: pod == client and drop_reason == POLICY and inner dst 10.0.2.10. Fields: pod node
    device namespace from to hook program step evidence verdict identity drop_reason protocol, and
    src dst host sport dport port, of the outer header if `outer` stands before. Words: dropped
    delivered tcp udp icmp arp. Joined by and, or, not and brackets.
    """
    # one command takes both: FROM may be any name, so `diff` cannot be a command below it
    if sender == "diff":
        from lab.cli.tracediff import compare

        compare(receiver, other, html=html, output=output)
        return
    _refuse(other, sender, receiver, follow=follow, topology=topology, at=at)
    if light and not follow:
        raise InputError("--light is for many packets", hint="lab trace LAB --follow --light")
    _only_for_ones_own(witness, elsewhere="--follow" if follow else "--at" if at else "")
    protocol = _protocol(udp=udp, tcp=tcp, icmp=icmp)
    shot = _shot(protocol, dport, payload, no_listen, witness)
    pages = {"html": html, "svg": svg, "pcapng": pcapng, "plot": plot}
    opened = opened_lab(sender, topology, whole=follow)
    with opened as (lab, place), probing(lab, probe or ()):
        goal = receiver.removeprefix(f"{lab.name}/")
        if follow:
            words = {"from": place, "to": goal, "protocol": protocol, "dport": str(dport or "")}
            limits = {"count": count, "duration_s": duration, "light": light}
            _follow(lab, words, where, limits, pages, output)
            return
        recording = _shoot(lab, place, goal, shot, at, where)
        write_pages(lab, recording.packets, recording.packets[:1], **pages)
    # the lab may be gone by now: what is printed needs nothing of it
    _report(recording.packets[0], output)


def _follow(
    lab: Lab,
    words: dict[str, str],
    where: str,
    limits: dict[str, Any],
    pages: dict[str, Path | None],
    output: Format,
) -> None:
    from lab.cli import follow as live

    condition = live.wanted(lab, words, where)
    live.follow(lab, lab.watch(condition, **limits), condition, output=output, pages=pages)


def _report(trace: Trace, output: Format) -> None:
    """Print a trace; exit code 1 if it is not what its sender hoped for."""
    show(trace, output)
    if trace.lost or trace.drops or (trace.witnesses and not trace.witnesses.agree):
        raise typer.Exit(1)


def _refuse(
    other: str, sender: str, receiver: str, *, follow: bool, topology: Path | None, at: str
) -> None:
    """Say what is wrong with arguments that contradict each other or are missing.

    Raises:
        InputError: they do.
    """
    if other:
        raise InputError(f"one argument too many: {other!r}", hint="lab trace LAB/FROM TO")
    if follow and at:
        raise InputError(
            "--at and --follow exclude each other", hint="--follow sends nothing itself"
        )
    if follow and (sender or topology):
        return
    if not sender:
        raise InputError("from where?", hint="lab trace LAB/FROM TO, or lab trace LAB --follow")
    if not receiver:
        raise InputError(
            f"where should the packet from {sender!r} go?", hint="lab trace LAB/FROM TO"
        )


def _only_for_ones_own(witness: Witness | None, *, elsewhere: str) -> None:
    """Raise InputError for a witness that is asked for where tracepoints alone watch."""
    if elsewhere and witness not in (None, Witness.TRACEPOINTS):
        raise InputError(
            f"--witness {witness} and {elsewhere} exclude each other",
            hint=f"with {elsewhere} tracepoints watch",
        )


def _shot(
    protocol: str, dport: int | None, payload: str, no_listen: bool, witness: Witness | None
) -> Shot:
    from lab.observe.recording import Shot

    return Shot(
        protocol=protocol or "udp",
        port=dport or _PORT,
        payload=payload.encode(),
        listen=not no_listen,
        witness=witness,
    )


def _shoot(lab: Lab, place: str, goal: str, shot: Shot, at: str, where: str) -> Recording:
    """Send the packet and return what was seen, the packet wanted in front.

    Raises:
        CheckFailed: the filter lets none of the packets through.
    """
    from lab.observe.filter import parse_filter
    from lab.observe.watch import vocabulary

    condition = parse_filter(where, vocabulary(lab))
    if at:
        from lab.observe.at import follow_at

        recording = follow_at(lab, place, goal, shot, at)
    else:
        from lab.observe.recording import follow

        recording = follow(lab, place, goal, shot)
    kept = tuple(trace for trace in recording.packets if condition.matches(trace))
    if not kept:
        raise CheckFailed(
            f"none of the {len(recording.packets)} packets of this flow is what --filter asks for",
            hint="leave --filter away to see them",
        )
    recording.packets = kept
    return recording


def show(trace: Trace, output: Format) -> None:
    """Print a trace as the ladder or as JSON."""
    if output is Format.JSON:
        typer.echo(trace.to_json(indent=1))
        return
    from lab.report.ladder import print_ladder

    print_ladder(trace, console())


def write_pages(
    lab: Lab,
    packets: tuple[Trace, ...],
    captured: tuple[Trace, ...],
    *,
    html: Path | None,
    svg: Path | None,
    pcapng: Path | None,
    plot: Path | None,
) -> None:
    """Write the files asked for: the page has all packets, drawing and figure have the first.

    Args:
        lab: must be up: for the figure, what watching costs is measured in it.
        packets: for page, drawing and figure.
        captured: for the capture.
        html: file of the page that plays the packets.
        svg: file of the drawing.
        pcapng: file of the capture.
        plot: file of the figure.

    Raises:
        InputError: a file cannot be written.
    """
    try:
        if pcapng is not None:
            from lab.observe.capture import write_pcapng

            write_pcapng(captured, pcapng)
        if svg is not None:
            from lab.report.svg import trace_svg

            svg.write_text(trace_svg(packets[0], lab.topology), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write {error.filename}: {error.strerror}", hint="choose another place"
        ) from error
    if html is not None:
        from lab.report.html import write_page

        write_page(packets, html, lab.topology)
    if plot is not None:
        from lab.observe.cost import cost_of_a_sight_us
        from lab.plot.latency import write_latency

        write_latency(packets[0], plot, cost_us=cost_of_a_sight_us(lab, packets[0]))


def _protocol(**asked: bool) -> str:
    names = [name for name, wanted in asked.items() if wanted]
    if len(names) > 1:
        raise InputError(
            f"--{' and --'.join(names)} exclude each other", hint="one packet has one protocol"
        )
    return names[0] if names else ""


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
def opened_lab(
    sender: str, topology: Path | None, *, whole: bool = False
) -> Iterator[tuple[Lab, str]]:
    """Yield the lab and the name of the sending place in it.

    Args:
        sender: ``LAB/PLACE``, or ``PLACE`` with a topology.
        topology: build this first.
        whole: ``LAB`` alone is enough; the place is empty then.
    """
    if topology is None:
        name, place = (sender, "") if whole and "/" not in sender else split_target(sender)
        lab = Lab.attach(name)
        try:
            yield lab, place
        finally:
            lab.close()
        return
    from lab.scenarios import load_topology

    with Lab(load_topology(topology)) as lab:
        yield lab, sender.rpartition("/")[2] if "/" in sender else sender
