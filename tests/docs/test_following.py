"""The page about following and filters names every word, and its examples parse."""

import re
from pathlib import Path

import pytest

from lab.observe.filter import parse_filter
from lab.observe.select import FIELDS, FLAGS, Known

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "following.md").read_text(encoding="utf-8")
KNOWN = Known(identities={"app=client": frozenset({256})})
(EXAMPLES,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.mark.parametrize("word", [*FIELDS, *FLAGS])
def test_a_word_is_explained(word: str) -> None:
    assert re.search(rf"`[^`\n]*\b{word}\b[^`\n]*`", PAGE)


@pytest.mark.parametrize("text", EXAMPLES.splitlines())
def test_an_example_parses(text: str) -> None:
    assert parse_filter(text, KNOWN).text == text
