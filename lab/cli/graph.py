"""``lab graph``: the picture of a topology, as text, SVG, a page, Mermaid or JSON."""

from __future__ import annotations

import enum
from html import escape
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.output import print_json
from lab.errors import InputError
from lab.model import Topology

app = typer.Typer(add_completion=False)


class Picture(enum.StrEnum):
    """What ``-o`` accepts."""

    TEXT = "text"
    SVG = "svg"
    HTML = "html"
    MERMAID = "mermaid"
    JSON = "json"


@app.command()
def graph_command(
    topology: Annotated[str, typer.Argument(help="Topology file, manifests, or a lab that is up")],
    output: Annotated[Picture, typer.Option("-o", "--output", help="Kind of picture.")] = (
        Picture.TEXT
    ),
    to: Annotated[
        Path | None, typer.Option("--to", help="Write to this file instead of standard output.")
    ] = None,
) -> None:
    """Draw a topology with the names, addresses and identities of the lab; needs no root."""
    described = find_topology(topology)
    if output is Picture.TEXT and to is None:
        from lab.report.topology import print_topology

        print_topology(described)
        return
    if output is Picture.JSON and to is None:
        print_json(described.to_json())
        return
    text = render(described, output)
    if to is None:
        typer.echo(text)
        return
    try:
        to.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write {to}: {error.strerror}", hint="name a file in a folder you may write"
        ) from None


def find_topology(name: str) -> Topology:
    """Return the topology of a lab that is up, else of a file or of Kubernetes manifests.

    Raises:
        InputError: none of them exists, or the file holds no topology.
    """
    from lab.runtime import Lab
    from lab.runtime.registry import labs
    from lab.scenarios import load_topology

    # a lab first: it may have been changed since it was built from the file
    if any(record.name == name for record in labs()):
        lab = Lab.attach(name)
        lab.close()
        return lab.topology
    path = Path(name)
    if path.is_dir() or path.suffix in (".yaml", ".yml", ".json"):
        from lab.k8s.live import prepare
        from lab.k8s.read import read_files

        return prepare(read_files([path]), name=path.resolve().stem).topology
    return load_topology(name)


def render(topology: Topology, kind: Picture) -> str:
    """Return the picture as text of one kind."""
    if kind is Picture.MERMAID:
        from lab.report.mermaid import mermaid

        return mermaid(topology).rstrip("\n")
    if kind is Picture.TEXT:
        from lab.report.topology import picture_text

        return picture_text(topology)
    if kind is Picture.JSON:
        from lab.cli.output import as_json

        return as_json(topology.to_json())
    from lab.report.svg import topology_svg

    svg = topology_svg(topology)
    if kind is Picture.SVG:
        return svg
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(topology.name)}</title></head><body>{svg}</body></html>"
    )
