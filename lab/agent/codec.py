"""Descriptions as JSON and back: frozen dataclasses of a few modules, tagged with their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any

from lab.errors import InputError
from lab.model import Namespace, Service
from lab.policy.objects import CiliumPolicy, Cluster, NetworkPolicy, Policy, Semantics

Description = Service | Namespace | Policy | Cluster | Semantics
"""What an agent can be told to realise."""

_TAG = "!"


@cache
def _known() -> dict[str, type[Any]]:
    from lab import model
    from lab.agent import status
    from lab.policy import objects

    return {
        name: kind
        for module in (objects, model, status)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, Enum))
    }


def encode(value: Any) -> Any:  # noqa: ANN401 - any description
    """Return JSON-ready data for a description; :func:`decode` reads it back.

    Raises:
        InputError: something in it is no description.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        fields = {name: encode(getattr(value, name)) for name in names}
        return {_TAG: type(value).__name__, **fields}
    match value:
        case Enum():
            return {_TAG: type(value).__name__, "value": value.value}
        case Mapping():
            return {_TAG: "map", "items": [[encode(k), encode(v)] for k, v in value.items()]}
        case set() | frozenset():
            return {_TAG: "set", "items": sorted((encode(item) for item in value), key=str)}
        case list() | tuple():
            return [encode(item) for item in value]
        case str() | int() | float() | bool() | None:
            return value
    raise InputError(
        f"{value!r} is no description", hint="use Service, Namespace, NetworkPolicy, CiliumPolicy"
    )


def decode(data: Any) -> Any:  # noqa: ANN401 - any description
    """Return what :func:`encode` was given; sequences come back as tuples.

    Raises:
        InputError: an unknown tag, or values that the description refuses.
    """
    if isinstance(data, list):
        return tuple(decode(item) for item in data)
    if not isinstance(data, dict):
        return data
    tag = data[_TAG]
    if tag == "map":
        return {decode(key): decode(value) for key, value in data["items"]}
    if tag == "set":
        return frozenset(decode(item) for item in data["items"])
    kind = _known().get(tag)
    if kind is None:
        raise InputError(f"unknown description {tag!r}", hint="client and agent differ in version")
    if issubclass(kind, Enum):
        return kind(data["value"])
    return kind(**{name: decode(item) for name, item in data.items() if name != _TAG})


def describe(value: Any) -> str:  # noqa: ANN401 - any description
    """Return the title by which an agent knows a description.

    Raises:
        InputError: it has none.
    """
    match value:
        case str():
            return value
        case Service():
            return f"service/{value.title}"
        case Namespace():
            return f"namespace/{value.name}"
        case NetworkPolicy() | CiliumPolicy():
            return value.title
    raise InputError(f"{value!r} cannot be deleted", hint="give a service, a policy or its title")
