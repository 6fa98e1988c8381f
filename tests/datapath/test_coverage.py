"""Every reason the datapath can drop a packet for is reached by a table of this folder."""

import re
from pathlib import Path

import pytest

from lab.datapath.build import SOURCES

HERE = Path(__file__).parent

# what only a failing kernel brings about, and why no packet can
UNREACHED = {
    "DROP_WRITE_ERROR": "a helper failed to write bytes that were just read",
    "DROP_CSUM_L3": "a helper failed to correct a checksum that was just read",
}


def used():
    """Names in the sources, without the list of all reasons itself."""
    found = set()
    for path in [*SOURCES.glob("*.c"), *SOURCES.glob("lib/*.h")]:
        if path.name != "drop_reasons.h":
            found |= set(re.findall(r"\bDROP_[A-Z0-9_]+\b", path.read_text()))
    return found - {"DROP_NOTIFY_VERSION"}


def tried():
    """Names in the tables and expectations of this folder's tests."""
    tests = [path for path in HERE.glob("test_*.py") if path.name != Path(__file__).name]
    return set(re.findall(r'"(DROP_[A-Z0-9_]+)"', "".join(path.read_text() for path in tests)))


def test_something_was_found():
    assert len(used()) > 25


@pytest.mark.parametrize("reason", sorted(used() - set(UNREACHED)))
def test_reason_is_tried(reason):
    assert reason in tried(), f"name {reason} in a table that reaches it"


def test_what_is_called_unreachable_is_used_and_not_tried():
    assert set(UNREACHED) <= used()
    assert not set(UNREACHED) & tried()
