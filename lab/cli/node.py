"""``lab node``: the machines of a lab, how they are set up, and their agent."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.chosen import LabOption, NodeOption, running, show
from lab.cli.output import Format, OutputOption, print_json
from lab.errors import KernelError

if TYPE_CHECKING:
    from lab.agent.status import AgentStatus
    from lab.runtime import Lab
    from lab.runtime.supervisor import Life

app = typer.Typer(no_args_is_help=True, add_completion=False)
agent = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("list")
def list_command(lab: LabOption = "", output: OutputOption = Format.TABLE) -> None:
    """List nodes: addresses and how many pods they have."""
    with running(lab) as live:
        nodes = live.facts.nodes
        life = live.agent.life()
    rows = (
        (node.name, str(node.address), str(node.pod_cidr), str(node.router), str(len(node.pods)))
        for node in nodes
    )
    show(output, nodes, ("NODE", "ADDRESS", "POD CIDR", "ROUTER", "PODS"), rows)
    if life.ended:
        typer.echo(f"the agent ended by itself {life.restarts} times: {life.ended}", err=True)


@app.command("config")
def config_command(
    lab: LabOption = "", node: NodeOption = "", output: OutputOption = Format.TABLE
) -> None:
    """Print the parameters that `init.sh` takes, as each node has them."""
    with running(lab) as live:
        names = [node] if node else [item.name for item in live.facts.nodes]
        found = {name: live.node(name).agent.config() for name in names}
    if output is Format.JSON:
        print_json(found)
        return
    for name, parameters in found.items():
        typer.echo(f"# {name}")
        for item in parameters:
            assignment = f"{item.name}={item.value}"
            typer.echo(f"{assignment:<34} # {item.meaning}")


@agent.command("status")
def status_command(lab: LabOption = "", output: OutputOption = Format.TABLE) -> None:
    """Print what the agent says of itself, or that there is none; and how the one before ended."""
    with running(lab) as live:
        life, status = _agent_of(live)
    if output is Format.JSON:
        print_json(asdict(life) | (asdict(status) if status else {}))
        return
    typer.echo(_agent_line(life, status))
    if life.ended:
        typer.echo(f"restarted {life.restarts} times; the last that ended by itself: {life.ended}")


def _agent_of(lab: Lab) -> tuple[Life, AgentStatus | None]:
    life = lab.agent.life()
    try:
        return life, lab.agent.status() if life.running else None
    except KernelError:
        return lab.agent.life(), None  # it ended while being asked


def _agent_line(life: Life, status: AgentStatus | None) -> str:
    if status is not None:
        return (
            f"agent number {status.started}, up {status.up_s:.0f} s: {status.endpoints} endpoints, "
            f"{status.services} services, {status.policies} policies"
        )
    coming = "" if life.next_s is None else f"; the next one starts in {life.next_s:.1f} s"
    return f"no agent is running; the datapath goes on without it{coming}"


@agent.command("kill")
def kill_command(lab: LabOption = "") -> None:
    """Kill the agent as `kill -9` would; connections stay."""
    with running(lab) as live:
        live.agent.kill()
    typer.echo("the agent is dead; the datapath goes on without it")


@agent.command("start")
def start_command(lab: LabOption = "") -> None:
    """Start an agent if none is running; it adopts maps and programs as they are."""
    with running(lab) as live:
        live.agent.start()
        number = live.agent.status().started
    typer.echo(f"agent number {number} has taken over")


@agent.command("collect")
def collect_command(
    lab: LabOption = "",
    node: NodeOption = "",
    output: OutputOption = Format.TABLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Remove expired conntrack and orphaned NAT entries now."""
    with running(lab) as live:
        names = [node] if node else [item.name for item in live.facts.nodes]
        found = [live.node(name).agent.collect() for name in names]
    if quiet:
        return
    rows = (
        (item.node, f"{item.ct_deleted}/{item.ct_seen}", f"{item.nat_deleted}/{item.nat_seen}")
        for item in found
    )
    show(output, found, ("NODE", "CONNTRACK DELETED/SEEN", "NAT DELETED/SEEN"), rows)
