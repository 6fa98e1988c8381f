"""The ``bpftool`` lines of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.plan.steps import LoadObject, UpdateMap


def load_lines(step: LoadObject) -> tuple[str, ...]:
    """Return the lines that load and pin an object's programs and fill its tail calls."""
    return ()


def update_lines(step: UpdateMap) -> tuple[str, ...]:
    """Return the line that writes one map entry."""
    return ()
