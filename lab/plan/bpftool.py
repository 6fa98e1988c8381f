"""The ``bpftool`` lines of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.plan.steps import LoadObject, MakeMaps, UpdateMap


def map_lines(step: MakeMaps) -> tuple[str, ...]:
    """Return the lines that create and pin a node's maps."""
    return ()


def load_lines(step: LoadObject) -> tuple[str, ...]:
    """Return the lines that load and pin an object's programs and fill its tail calls."""
    return ()


def update_lines(step: UpdateMap) -> tuple[str, ...]:
    """Return the line that writes one map entry."""
    from lab.plan.steps import globals_dir

    def bytes_of(text: str) -> str:
        return " ".join(text[n : n + 2] for n in range(0, len(text), 2))

    pin = f"{globals_dir(step.where)}/{step.map}"
    line = f"bpftool map update pinned {pin} key hex {bytes_of(step.key)} "
    return (line + f"value hex {bytes_of(step.value)}",)
