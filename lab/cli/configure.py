"""``lab configure``: a compiled object with its load-time constants filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.errors import InputError
from lab.names import did_you_mean

app = typer.Typer()


@app.command()
def configure_command(
    name: Annotated[str, typer.Argument(help="Object below bpf/, e.g. bpf_lxc")],
    constants: Annotated[
        list[str] | None, typer.Argument(help="NAME=VALUE: number, true/false, address or MAC")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="File to write.")] = Path("configured.o"),
) -> None:
    """Write an object that `bpftool prog loadall` loads with these constants (bpf/lib/config.h)."""
    from lab.datapath.build import build_objects
    from lab.datapath.objects import export
    from lab.datapath.render import config_value
    from lab.layouts.attach import OBJECTS

    if name not in OBJECTS:
        raise InputError(f"no object is called {name!r}", hint=did_you_mean(name, OBJECTS))
    config = {}
    for item in constants or ():
        key, equals, text = item.partition("=")
        if not equals:
            raise InputError(f"{item!r} is no NAME=VALUE", hint="write endpoint_id=266")
        config[key] = config_value(_plain(text))
    export(build_objects([name])[name], config, to)


def _plain(text: str) -> str | int | bool:
    if text in ("True", "False", "true", "false"):
        return text in ("True", "true")
    return int(text) if text.isdecimal() else text
