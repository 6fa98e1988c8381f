"""Values as JSON: what a program that reads ``-o json`` can rely on."""

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from lab.cli.output import as_json


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Inner:
    value: int
    _hidden: int = 0


@dataclass(frozen=True, slots=True)
class Outer:
    items: tuple[Inner, ...]


VALUES = {
    "a dataclass inside a dataclass": (
        Outer((Inner(1), Inner(2))),
        {"items": [{"value": 1}, {"value": 2}]},
    ),
    "an enum as its value": ([Colour.RED], ["red"]),
    "a set in order": ({3, 1}, [1, 3]),
    "bytes in hex": ([b"\x01\xff"], ["01ff"]),
    "a path as text": ([Path("/x")], ["/x"]),
}


@pytest.mark.parametrize(("value", "expected"), VALUES.values(), ids=VALUES.keys())
def test_value_becomes_json(value: object, expected: object) -> None:
    assert json.loads(as_json(value)) == expected
