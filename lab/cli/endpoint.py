"""``lab endpoint``: the pods of each node as their datapath sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.chosen import LabOption, NodeOption, running, show
from lab.cli.output import Format, OutputOption, print_json
from lab.errors import InputError
from lab.names import did_you_mean

if TYPE_CHECKING:
    from lab.agent.status import EndpointStatus
    from lab.runtime import Lab

app = typer.Typer(no_args_is_help=True, add_completion=False)

EndpointArgument = Annotated[str, typer.Argument(help="Endpoint id, or name of a pod or node.")]
HEADINGS = ("NODE", "ENDPOINT", "INGRESS", "EGRESS", "IDENTITY", "LABELS", "IPv4", "STATUS")


@app.command("list")
def list_command(
    lab: LabOption = "", node: NodeOption = "", output: OutputOption = Format.TABLE
) -> None:
    """List endpoints: id, policy enforcement, identity, labels, address, state."""
    with running(lab) as live:
        found = [item for item in live.agent.endpoints() if node in ("", item.node)]
    show(output, found, HEADINGS, (_row(item) for item in found))


def _row(item: EndpointStatus) -> tuple[str, ...]:
    labels = [label for label in item.labels if label.startswith(("k8s:", "reserved:"))]
    # those of namespace and cluster (io.kubernetes, io.cilium) would fill the line
    own = [label.rstrip("=") for label in labels if "io.c" not in label and "io.k" not in label]
    return (
        item.node,
        str(item.id),
        "Enabled" if item.ingress else "Disabled",
        "Enabled" if item.egress else "Disabled",
        str(item.identity),
        " ".join(own),
        item.address,
        item.state,
    )


@app.command("get")
def get_command(endpoint: EndpointArgument, lab: LabOption = "", node: NodeOption = "") -> None:
    """Print everything about one endpoint, with the files of its state directory, as JSON."""
    with running(lab) as live:
        found = find(live, endpoint, node)
        place = live.node(found.node)
        listed = place.run(["ls", found.directory]).stdout.split()
        header = place.run(["cat", f"{found.directory}/ep_config.h"]).stdout
    print_json({"endpoint": found, "files": listed, "header": header.splitlines()})


def find(live: Lab, endpoint: str, node: str) -> EndpointStatus:
    """Return the endpoint of that id or name.

    Raises:
        InputError: there is none, or several nodes have one of that id.
    """
    every = live.agent.endpoints()
    found = [
        item
        for item in every
        # ids are unique on a node, and two nodes may have the same
        if endpoint in (str(item.id), item.pod or item.node) and node in ("", item.node)
    ]
    if len(found) > 1:
        raise InputError(f"several nodes have endpoint {endpoint}", hint="say which: --node NAME")
    if not found:
        known = {item.pod or item.node for item in every} | {str(item.id) for item in every}
        raise InputError(f"there is no endpoint {endpoint!r}", hint=did_you_mean(endpoint, known))
    return found[0]


@app.command("regenerate")
def regenerate_command(
    endpoint: EndpointArgument, lab: LabOption = "", node: NodeOption = ""
) -> None:
    """Load an endpoint's programs anew and exchange them under load."""
    with running(lab) as live:
        found = find(live, endpoint, node)
        place = live.node(found.node)
        revision = place.agent.regenerate(found.id, "asked for on the command line")
    typer.echo(f"endpoint {found.id} on {found.node}: revision {revision}")


@app.command("log")
def log_command(endpoint: EndpointArgument, lab: LabOption = "", node: NodeOption = "") -> None:
    """Print what happened to an endpoint: monotonic clock in seconds, then the event."""
    with running(lab) as live:
        found = find(live, endpoint, node)
        for line in live.node(found.node).agent.log(found.id):
            typer.echo(line)


@app.command("custom")
def custom_command(
    pod: Annotated[str, typer.Argument(help="Name of a pod.")],
    direction: Annotated[str, typer.Argument(help="ingress: what it receives; egress: sends.")],
    source: Annotated[
        Path | None, typer.Argument(help="C file or object; without one the slot is emptied.")
    ] = None,
    program: Annotated[str, typer.Option(help="Function of the file, if it has several.")] = "",
    lab: LabOption = "",
) -> None:
    """Let a program of yours run after those of a pod, see bpf/bpf_custom.c."""
    from lab.runtime.custom import put_custom_call

    with running(lab) as live:
        name = put_custom_call(live, pod, direction, source, program)
    typer.echo(f"{direction} of {pod}: {name or 'nothing'} has the last word")
