"""How commands print: a table for people, JSON for programs, colours only where wanted."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


class Format(enum.StrEnum):
    """What ``-o`` accepts."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    Format, typer.Option("-o", "--output", help="table for people, json for programs.")
]


def as_json(value: object) -> str:
    """Return ``value`` as indented JSON.

    Dataclasses become objects, enums their value, tuples lists; everything else that JSON does
    not know becomes its text.
    """
    return json.dumps(value, indent=2, default=_plain, ensure_ascii=False)


def print_json(value: object) -> None:
    """Print ``value`` as JSON on standard output."""
    typer.echo(as_json(value))


def console() -> Console:
    """Return a rich console on standard output; NO_COLOR and pipes are respected."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def _plain(value: object) -> Any:  # noqa: ANN401 (json's own signature)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if not field.name.startswith("_")
        }
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        # a set has no order, and two runs should print the same
        return sorted(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
