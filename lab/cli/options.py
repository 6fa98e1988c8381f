"""``--set NAME=VALUE``: options of the datapath, said on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.errors import InputError

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change an option of the datapath: --set routing=native. Repeatable."
    ),
]


def changed_options(settings: list[str] | None) -> dict[str, str]:
    """Return what ``--set`` was given, by option.

    Raises:
        InputError: a word without ``=``.
    """
    changes = {}
    for setting in settings or ():
        name, sign, value = setting.partition("=")
        if not sign:
            raise InputError(f"--set {setting!r}", hint="write it like --set routing=native")
        changes[name.replace("-", "_")] = value
    return changes
