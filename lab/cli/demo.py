"""``lab demo``: the whole walk in one go, from the picture of the nodes to the packet's ladder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.lifecycle import EngineOption, check_engine, progress_bar
from lab.cli.output import Format, OutputOption, console, print_json
from lab.model import Node, Pod, Topology
from lab.runtime import Lab
from lab.scenarios import Check
from lab.trace import Trace

app = typer.Typer(add_completion=False)

TOPOLOGY = Topology(
    name="demo",
    nodes=(Node("alpha"), Node("beta")),
    pods=(
        Pod("client", node="alpha", labels={"app": "client"}),
        Pod("web", node="alpha", labels={"app": "web"}),
        Pod("server", node="beta", labels={"app": "server"}),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the demonstration found.

    Attributes:
        seconds: wall time until the lab was up.
        checks: the sentences.
        trace: of one datagram from client to server.
    """

    seconds: float
    checks: tuple[Check, ...]
    trace: Trace

    @property
    def passed(self) -> bool:
        """Whether every sentence holds."""
        return all(check.holds for check in self.checks)


@app.command()
def demo_command(
    engine: EngineOption = "netns",
    html: Annotated[
        Path | None, typer.Option(help="Also write a page that plays the packet's way.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Build two nodes with the datapath, check who reaches whom, follow one packet hook by hook.

    Everything is taken down at the end. Exit code 1 if a sentence does not hold.
    """
    check_engine(engine)
    found = demonstrate(engine)
    if html is not None:
        from lab.report.html import write_page

        write_page(found.trace, html, TOPOLOGY)
    if output is Format.JSON:
        checks = [{"statement": one.statement, "holds": one.holds} for one in found.checks]
        print_json({"passed": found.passed, "seconds": round(found.seconds, 3), "checks": checks,
                    "trace": found.trace.as_dict()})  # fmt: skip
    else:
        _print(found)
    raise typer.Exit(0 if found.passed else 1)


def demonstrate(engine: str = "netns") -> Demo:
    """Run the demonstration in a lab of its own and return what came of it.

    Raises:
        PrerequisiteError: not root, or something is not installed.
        UnsupportedError: this kernel cannot run the datapath or the tracer.
    """
    begun = time.perf_counter()
    with (
        progress_bar("building the lab") as progress,
        Lab(TOPOLOGY, engine=engine, progress=progress) as lab,
    ):
        seconds = time.perf_counter() - begun
        checks = tuple(_reached(lab))
        trace = lab.follow("client", "server").packets[0]
    return Demo(seconds=seconds, checks=(*checks, *_said_by(trace)), trace=trace)


def _reached(lab: Lab) -> Iterator[Check]:
    client, server, web = lab.pod("client"), lab.pod("server"), lab.pod("web")
    with server.serve_udp(5000), server.serve_tcp(80):
        datagram = client.send_udp(server, 5000).ok
        yield Check(statement="a datagram from client (alpha) to server (beta) is answered",
                    holds=datagram)  # fmt: skip
        yield Check(statement="a TCP connection between them is made",
                    holds=client.connect(server, 80, payload=b"hello").ok)  # fmt: skip
    yield Check(statement="an echo request between them is answered", holds=client.ping(server).ok)
    yield Check(statement="client reaches web on its own node", holds=client.ping(web).ok)
    yield Check(statement="client reaches the other node itself",
                holds=client.ping(lab.node("beta")).ok)  # fmt: skip
    yield Check(statement="nobody answers for an address that no pod has",
                holds=not client.ping("10.0.2.99", timeout_s=0.3).ok)  # fmt: skip


def _said_by(trace: Trace) -> Iterator[Check]:
    from lab.plan.inventory import inventory
    from lab.report.headers import tunnel

    outer = [tunnel(hop.before, hop.link_layer) for hop in trace.taken if hop.before]
    numbers = {found.vni for found in outer if found is not None}
    # the lab is down by now, and numbers follow from the description alone
    identity = inventory(TOPOLOGY).pod("client").identity
    yield Check(statement=f"the packet crosses the underlay in VXLAN with VNI {identity}, its "
                "sender's identity", holds=numbers == {identity})  # fmt: skip
    yield Check(statement="a socket in server is woken with the packet in its queue",
                holds=trace.delivered)  # fmt: skip
    yield Check(statement="no event about the packet was lost", holds=not trace.lost)


def _print(found: Demo) -> None:
    from lab.report.ladder import print_ladder
    from lab.report.topology import print_topology

    out = console()
    print_topology(TOPOLOGY, out)
    typer.echo(f"\nup in {found.seconds:.2f} s, with the datapath loaded and attached\n")
    for check in found.checks:
        sign = typer.style("✓", fg="green") if check.holds else typer.style("✗", fg="red")
        typer.echo(f"{sign} {check.statement}")
    typer.echo("")
    print_ladder(found.trace, out)
    typer.echo(
        "\nnext: lab up topologies/two_nodes.py --name a, then lab trace a/client server --html "
        "t.html"
    )
