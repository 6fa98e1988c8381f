"""The page about JSON names every field that a trace has, and every grade of evidence."""

from dataclasses import fields
from pathlib import Path

import pytest

from lab.trace import (
    SCHEMA_VERSION,
    Comparison,
    Difference,
    Evidence,
    Hop,
    LookUp,
    Met,
    PacketId,
    Relation,
    Trace,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "trace_json.md").read_text(encoding="utf-8")
KINDS = (Comparison, Difference, Hop, LookUp, Met, PacketId, Relation, Trace)
NAMES = sorted({field.name for kind in KINDS for field in fields(kind)} | {"schema", "verdict"})


@pytest.mark.parametrize("name", NAMES)
def test_a_field_is_explained(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("grade", Evidence, ids=str)
def test_a_grade_of_evidence_is_named(grade: Evidence) -> None:
    assert f"`{grade}`" in PAGE


def test_the_number_of_the_schema_is_the_programs() -> None:
    assert f"`schema` is {SCHEMA_VERSION}:" in PAGE
