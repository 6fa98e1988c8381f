"""``lab up``, ``down``, ``ls``, ``exec``, ``shell`` and ``clean``."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lab.cli.options import SetOption, changed_options
from lab.cli.output import Format, OutputOption, console, print_json
from lab.errors import InputError, LabError
from lab.kernel import cgroup
from lab.kernel.process import require
from lab.runtime import Lab, registry
from lab.runtime.start import KeeperProcess, Progress, attach
from lab.runtime.supervisor import Life

ENGINES = ("netns", "mininet")

up = typer.Typer()
down = typer.Typer()
ls = typer.Typer()
exec_ = typer.Typer()
shell = typer.Typer()
clean = typer.Typer()

EngineOption = Annotated[
    str, typer.Option("--engine", help="netns (in process) or mininet (Mininet's own objects).")
]


def check_engine(engine: str) -> str:
    """Return the engine's name.

    Raises:
        InputError: there is no such engine.
    """
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r} is unknown", hint=f"known: {', '.join(ENGINES)}")
    return engine


@contextmanager
def progress_bar(what: str) -> Iterator[Progress | None]:
    """Yield a progress callback that draws a bar on standard error, or None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def split_target(target: str) -> tuple[str, str]:
    """Split ``LAB/POD``, ``LAB/NODE`` or ``LAB/NAMESPACE/POD`` into lab and place.

    Raises:
        InputError: it has no slash.
    """
    lab, _, place = target.partition("/")
    if not lab or not place:
        names = [record.name for record in registry.labs()]
        raise InputError(
            f"{target!r} names no place in a lab",
            hint=f"write LAB/POD or LAB/NODE; labs that are up: {', '.join(names) or 'none'}",
        )
    return lab, place


@up.command()
def up_command(
    topology: Annotated[
        list[Path],
        typer.Argument(help="Topology file (topologies/two_nodes.py), or Kubernetes manifests."),
    ],
    name: Annotated[str, typer.Option(help="Name of the lab; the topology's by default.")] = "",
    engine: EngineOption = "netns",
    semantics: Annotated[
        str, typer.Option(help="For manifests: policies as k8s or cilium promise them.")
    ] = "k8s",
    settings: SetOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Build a lab from a topology or from manifests and keep it up until `lab down`."""
    changes = changed_options(settings)
    lab = _build(topology, name, check_engine(engine), semantics, changes)
    chosen = lab.name
    record = registry.find(chosen)
    if output is Format.JSON:
        print_json(_row(record))
        return
    seconds = lab.keeper.seconds
    typer.echo(f"{chosen} is up: {_count(record)}, built in {seconds:.2f} s")
    if record.pods:
        typer.echo(f"try: lab exec {chosen}/{record.pods[0]} -- ip addr")


def _build(
    paths: list[Path], name: str, engine: str, semantics: str, changes: dict[str, str]
) -> Lab:
    from lab.scenarios import load_topology

    if any(path.suffix in (".yaml", ".yml", ".json") or path.is_dir() for path in paths):
        return _build_from_manifests(paths, name, engine, semantics, changes)
    if len(paths) > 1:
        raise InputError("a lab has one topology", hint="name one file, or only manifests")
    described = load_topology(paths[0])
    described = replace(described, options=described.options.with_words(changes))
    chosen = name or described.name
    _check_lab_name(chosen)
    with progress_bar(f"building {chosen}") as progress:
        lab = Lab(described, name=chosen, engine=engine, progress=progress)
        return lab.start(attached=False)


def _build_from_manifests(
    paths: list[Path], name: str, engine: str, semantics: str, changes: dict[str, str]
) -> Lab:
    from lab.k8s.configuration import options_of
    from lab.k8s.live import up as build
    from lab.k8s.read import read_files
    from lab.policy.objects import Semantics

    objects = read_files(paths)
    meant = {item.value: item for item in Semantics}
    if semantics not in meant:
        raise InputError(f"semantics {semantics!r} is unknown", hint="known: k8s, cilium")
    first = paths[0].resolve()
    chosen = name or (first if len(paths) == 1 else first.parent).with_suffix("").name
    _check_lab_name(chosen)
    with progress_bar(f"building {chosen}") as progress:
        lab, outcome = build(
            objects,
            name=chosen,
            engine=engine,
            options=options_of(objects).with_words(changes),
            semantics=meant[semantics],
            progress=progress,
        )
    for note in outcome.notes:
        typer.echo(f"note: {note}", err=True)
    return lab


def _check_lab_name(name: str) -> None:
    from lab.names import check_pod_name

    if "/" in name:
        raise InputError(f"lab name {name!r} has a slash", hint="LAB/POD separates lab and pod")
    # it becomes a folder's name and part of a control group's
    check_pod_name(name)


def _count(record: registry.Record) -> str:
    nodes, pods = len(record.nodes), len(record.pods)
    return f"{nodes} node{'s' * (nodes != 1)}, {pods} pod{'s' * (pods != 1)}"


def _row(record: registry.Record) -> dict[str, object]:
    return {
        "name": record.name,
        "pid": record.pid,
        "engine": record.engine,
        "nodes": list(record.nodes),
        "pods": list(record.pods),
    }


@down.command()
def down_command(
    names: Annotated[list[str] | None, typer.Argument(help="Labs to take down.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Take all labs down.")] = False,
) -> None:
    """Take labs down; their namespaces, links, programs and maps are gone afterwards."""
    chosen = [record.name for record in registry.labs()] if everything else list(names or ())
    if not chosen and not everything:
        raise InputError("no lab is named", hint="name one, or use --all")
    # all are looked up first: a wrong name leaves every lab alone
    for keeper in [attach(name) for name in chosen]:
        keeper.stop()
        typer.echo(f"{keeper.record.name} is down")


@ls.command()
def ls_command(output: OutputOption = Format.TABLE) -> None:
    """List the labs that are up."""
    registry.sweep()
    records = registry.labs()
    if output is Format.JSON:
        print_json([_row(record) | {"agent": agent_word(record)} for record in records])
        return
    if not records:
        typer.echo("no lab is up; start one with: lab up topologies/two_nodes.py", err=True)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "PID", "ENGINE", "AGENT", "NODES", "PODS"):
        table.add_column(heading)
    for record in records:
        table.add_row(
            record.name,
            str(record.pid),
            record.engine,
            agent_word(record),
            " ".join(record.nodes),
            " ".join(record.pods),
        )
    console().print(table)


def agent_word(record: registry.Record) -> str:
    """Say in a word how a lab's agent is: up, restarted, ended, off; - if nobody may ask."""
    # a busy keeper must not hold up a list of all labs
    keeper = KeeperProcess(record, patience_s=1.0)
    try:
        answer, _ = keeper.ask(op="agent", action="status")
    except LabError:
        return "-"
    finally:
        keeper.close()
    life = Life(**answer)
    if not life.running:
        return "off" if life.next_s is None else "ended"
    return f"restarted {life.restarts}x" if life.restarts else "up"


@exec_.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def exec_command(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="LAB/POD or LAB/NODE")],
) -> None:
    """Run a command inside a pod or node: `lab exec LAB/POD -- ip addr`.

    The command sees that place's network, /sys, /sys/fs/bpf and control group; its exit code is
    passed through.
    """
    if not context.args:
        raise InputError("no command is given", hint=f"lab exec {target} -- ip addr")
    enter(target, context.args)


@shell.command()
def shell_command(target: Annotated[str, typer.Argument(help="LAB/POD or LAB/NODE")]) -> None:
    """Open a shell inside a pod or node; it ends with the lab."""
    os.environ["PS1"] = f"[{target}] \\w\\$ "
    # --norc, or the user's own prompt would hide whose shell this is
    enter(target, ["bash", "--norc", "-i"])


def enter(target: str, argv: list[str]) -> NoReturn:
    """Replace this process by a command inside a place of a lab.

    Raises:
        InputError: no such lab or place.
        PrerequisiteError: the command does not exist.
    """
    lab_name, place = split_target(target)
    lab = Lab.attach(lab_name)
    name = lab.place(place).name
    view, _ = lab.keeper.ask(op="enter", target=name)
    pid = lab.keeper.record.pid
    command = [require(argv[0]), *argv[1:]]
    # A process born in the pod's control group: a socket made elsewhere would escape its hooks.
    if view["cgroup"]:
        cgroup.move_self(Path(view["cgroup"]))
    words = [
        require("nsenter"),
        f"--net=/proc/{pid}/fd/{view['net']}",
        f"--mount=/proc/{pid}/fd/{view['mnt']}",
        f"--pid=/proc/{pid}/ns/pid",
        f"--wd={Path.cwd()}",
        "--",
        *command,
    ]
    lab.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdout.flush()
    if os.environ.get("LAB_DEBUG"):
        typer.echo(shlex.join(words), err=True)
    os.execv(words[0], words)


@clean.command()
def clean_command() -> None:
    """Sweep what labs left behind whose owner is dead; running labs are not touched."""
    from lab.runtime.start import require_root

    require_root()
    swept = registry.sweep()
    typer.echo(f"swept: {', '.join(swept)}" if swept else "nothing to sweep")
