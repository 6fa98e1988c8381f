"""Frozen data to JSON-ready values and back, for messages and state files.

Works on dataclasses by their type hints, so that a new field needs no line here. Data of another
shape is refused, not guessed at.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from lab.errors import InputError

_TAG = "is"


def encode(value: object) -> Any:  # noqa: ANN401 - JSON has no narrower type
    """Return a value as dicts, lists, text, numbers, booleans and ``None``.

    Dataclasses carry their class name, sets are sorted.

    Raises:
        InputError: something in it is none of these, or a mapping has keys that are no text.
    """
    if is_dataclass(value) and not isinstance(value, type):
        body = {item.name: encode(getattr(value, item.name)) for item in fields(value)}
        return {_TAG: type(value).__name__, **body}
    match value:
        case Enum():
            return value.value
        case set() | frozenset():
            # the order of a set differs from process to process, a state file should not; and
            # what dataclasses become has no order of its own
            return sorted((encode(item) for item in value), key=str)
        case list() | tuple():
            return [encode(item) for item in value]
        # JSON would turn other keys into text without a word, and they would come back as such
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: encode(item) for key, item in value.items()}
        case str() | int() | float() | None:
            return value
    raise InputError(
        f"{str(value)[:60]!r} ({type(value).__name__}) is nothing that a message can carry",
        hint="use the lab's own descriptions: Service, Namespace, NetworkPolicy, CiliumPolicy",
    )


def decode(kind: Any, data: object) -> Any:  # noqa: ANN401 - a type or a union of types
    """Return what :func:`encode` made of a value of ``kind``; sequences come back as tuples.

    Raises:
        InputError: the data has another shape, or values that a description refuses.
    """
    return _decode(kind, data)


def _decode(kind: Any, data: Any) -> Any:  # noqa: ANN401 - types are values here
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(arguments, data)
    if origin is not None:
        return _decode_container(origin, arguments, data)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        if not isinstance(data, dict) or data.get(_TAG) != kind.__name__:
            raise _misfit(kind.__name__, data)
        body = {name: _decode(hints[name], data[name]) for name in hints if name in data}
        return kind(**body)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    # a whole number of seconds is written like an integer
    if kind is float and type(data) is int:
        return float(data)
    # Python counts booleans among the integers
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise _misfit(kind.__name__, data)
    return data


def _decode_container(origin: Any, arguments: tuple[Any, ...], data: Any) -> Any:  # noqa: ANN401
    if issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise _misfit("mapping", data)
        return {key: _decode(arguments[1], item) for key, item in data.items()}
    if not isinstance(data, list):
        raise _misfit("list", data)
    if origin is not tuple:
        return origin(_decode(arguments[0], item) for item in data)
    if arguments[1:] == (Ellipsis,):
        return tuple(_decode(arguments[0], item) for item in data)
    if len(arguments) != len(data):
        raise _misfit(f"list of {len(arguments)}", data)
    return tuple(_decode(part, item) for part, item in zip(arguments, data, strict=True))


def _decode_union(arguments: tuple[Any, ...], data: Any) -> Any:  # noqa: ANN401
    # dataclasses carry their name; all else in a union is told apart by JSON's own types
    tag = data.get(_TAG) if isinstance(data, dict) else None
    for part in arguments:
        if tag is not None:
            if isinstance(part, type) and part.__name__ == tag:
                return _decode(part, data)
        elif data is None or part is type(None):
            if data is None and part is type(None):
                return None
        elif not isinstance(part, type) or issubclass(part, Enum) or isinstance(data, part):
            return _decode(part, data)
    raise _misfit(" | ".join(getattr(part, "__name__", str(part)) for part in arguments), data)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _misfit(wanted: str, data: object) -> InputError:
    return InputError(
        f"{str(data)[:60]!r} is no {wanted}", hint="it was written by another version of the lab"
    )
