"""``lab service``: stable addresses in front of pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.chosen import LabOption, running, show
from lab.cli.output import Format, OutputOption, print_json
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.model import ServicePort

app = typer.Typer(no_args_is_help=True, add_completion=False)

NameArgument = Annotated[str, typer.Argument(help="NAME or NAMESPACE/NAME of the service.")]


@app.command("list")
def list_command(lab: LabOption = "", output: OutputOption = Format.TABLE) -> None:
    """List frontends: number, address, type and backends, as `cilium service list` does."""
    with running(lab) as live:
        found = live.agent.services()
    rows = (
        (
            str(item.id),
            f"{item.address}:{item.port}/{item.protocol}",
            item.kind,
            service.name,
            "\n".join(
                f"{n} => {backend.address}:{backend.port} ({backend.state})"
                for n, backend in enumerate(item.backends, 1)
            ),
        )
        for service in found
        for item in service.frontends
    )
    show(output, found, ("ID", "FRONTEND", "SERVICE TYPE", "SERVICE", "BACKEND"), rows)


@app.command("get")
def get_command(name: NameArgument, lab: LabOption = "") -> None:
    """Print one service as JSON."""
    with running(lab) as live:
        print_json(live.service(name))


@app.command("add")
def add_command(
    name: NameArgument,
    port: Annotated[list[str], typer.Option("--port", "-p", help="80, 80:8080 or 53:5353/UDP.")],
    backend: Annotated[list[str], typer.Option("--backend", "-b", help="Name of a pod.")],
    kind: Annotated[str, typer.Option(help="ClusterIP, NodePort or LoadBalancer.")] = "ClusterIP",
    affinity_s: Annotated[int, typer.Option("--affinity", help="Seconds of affinity.")] = 0,
    lab: LabOption = "",
) -> None:
    """Add a service, or replace the one of that name."""
    from lab.model import Service

    namespace, _, bare = name.rpartition("/")
    service = Service(
        name=bare,
        namespace=namespace or "default",
        kind=kind,
        ports=tuple(parse_port(text) for text in port),
        backends=tuple(backend),
        affinity_s=affinity_s,
    )
    with running(lab) as live:
        live.apply(service)
        done = live.service(service.title)
    ports = ", ".join(str(number) for number in done.node_ports)
    typer.echo(f"{done.name} is at {done.address}" + (f", node ports {ports}" if ports else ""))


def parse_port(text: str) -> ServicePort:
    """Read ``PORT[:TARGET[/PROTOCOL]]``.

    Raises:
        InputError: it is not written so.
    """
    from lab.model import ServicePort

    numbers, _, protocol = text.partition("/")
    port, _, target = numbers.partition(":")
    if not port.isdecimal() or (target and not target.isdecimal()):
        raise InputError(
            f"port {text!r} is not understood", hint="write 80, 80:8080 or 53:5353/UDP"
        )
    return ServicePort(int(port), int(target or 0), protocol.upper() or "TCP")


@app.command("delete")
def delete_command(name: NameArgument, lab: LabOption = "") -> None:
    """Take a service back; its flows lose their way."""
    title = name if "/" in name else f"default/{name}"
    with running(lab) as live:
        live.delete(f"service/{title}")
    typer.echo(f"{title} is deleted")
