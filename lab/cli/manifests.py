"""``lab apply``, ``delete`` and ``get``: Kubernetes objects of a running lab."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from lab.cli.output import print_json
from lab.errors import InputError
from lab.k8s import live
from lab.k8s.listing import Listing, find_kind, listing
from lab.k8s.read import read_files
from lab.k8s.state import load
from lab.runtime import Lab, registry

apply = typer.Typer()
delete = typer.Typer()
get = typer.Typer()

FilesOption = Annotated[
    list[str], typer.Option("-f", "--filename", help="Manifests: files, folders, - for stdin.")
]
LabOption = Annotated[str, typer.Option("--lab", help="The lab, instead of the first word.")]


def choose(words: list[str], named: str) -> tuple[Lab, list[str]]:
    """Return the lab meant and the words left: the first word, ``--lab``, or the only lab.

    Raises:
        InputError: no lab is up, or several are and none is named.
    """
    names = [record.name for record in registry.labs()]
    if named:
        return Lab.attach(named), words
    # a lab that is up wins over a kind of the same name: `lab get pods pods` still says both
    if words and words[0] in names:
        return Lab.attach(words[0]), words[1:]
    if len(names) == 1:
        return Lab.attach(names[0]), words
    if not names:
        raise InputError("no lab is up", hint="lab up topologies/shop --name s")
    raise InputError("several labs are up", hint="name one first: " + ", ".join(names))


class GetFormat(StrEnum):
    """What ``lab get -o`` accepts."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@apply.command()
def apply_command(
    files: FilesOption,
    words: Annotated[list[str] | None, typer.Argument(metavar="[LAB]")] = None,
    lab: LabOption = "",
) -> None:
    """Create or change objects: all of them, or none if one is wrong."""
    objects = read_files(files)
    running, rest = choose(list(words or ()), lab)
    if rest:
        raise InputError(f"{rest[0]!r} is no lab that is up", hint="lab ls; files come after -f")
    _print(live.apply(running, objects))


@delete.command()
def delete_command(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[LAB] [KIND NAME...]", help="Instead of files.")
    ] = None,
    lab: LabOption = "",
    files: Annotated[list[str] | None, typer.Option("-f", "--filename", help="Manifests.")] = None,
    namespace: Annotated[str, typer.Option("-n", "--namespace")] = "default",
) -> None:
    """Take objects out of a running lab, by manifest or by kind and name."""
    running, what = choose(list(words or ()), lab)
    if files:
        keys = live.keys_of(read_files(files))
    elif len(what) >= 2:
        kind = find_kind(what[0])
        space = "" if kind.cluster_wide else namespace
        keys = tuple((kind.name, space, name) for name in what[1:])
    else:
        raise InputError(
            "nothing is named", hint="lab delete LAB -f FILE, or lab delete LAB KIND NAME"
        )
    _print(live.delete(running, keys))


def _print(outcome: live.Outcome) -> None:
    for line in outcome.lines:
        typer.echo(line)
    for note in outcome.notes:
        typer.echo(f"note: {note}", err=True)


@get.command()
def get_command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[LAB] KIND [NAME...]",
            help="pods, services, endpoints, networkpolicies, identities, nodes, ...",
        ),
    ],
    lab: LabOption = "",
    namespace: Annotated[
        str, typer.Option("-n", "--namespace", help="Only this one; all by default.")
    ] = "",
    output: Annotated[GetFormat, typer.Option("-o", "--output")] = GetFormat.TABLE,
) -> None:
    """List objects: pods, services, endpoints, networkpolicies, identities, nodes, ..."""
    running, rest = choose(words, lab)
    if not rest:
        raise InputError("no kind is named", hint="lab get pods")
    found = listing(running, load(running), find_kind(rest[0]), namespace, rest[1:])
    running.close()
    match output:
        case GetFormat.JSON:
            print_json(found.items)
        case GetFormat.YAML:
            from lab.k8s.write import to_yaml

            typer.echo(to_yaml(found.items), nl=False)
        case GetFormat.NAME:
            for title in found.names:
                typer.echo(title)
        case _:
            _table(found, wide=output is GetFormat.WIDE)


def _table(found: Listing, *, wide: bool) -> None:
    if not found.rows:
        typer.echo(f"no {found.kind} found", err=True)
        return
    count = len(found.headings) if wide else found.narrow
    lines = [tuple(heading.upper() for heading in found.headings[:count])]
    lines += [row[:count] for row in found.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(count)]
    for line in lines:
        words = [f"{word:<{width}}" for word, width in zip(line, widths, strict=True)]
        typer.echo("   ".join(words).rstrip())
