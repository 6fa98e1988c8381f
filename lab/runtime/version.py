"""Which code a keeper and its callers run: a lab kept up while that changes is told apart."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from lab.datapath.build import SOURCES

_PACKAGE = Path(__file__).resolve().parents[1]
_SPOKEN = (
    "agent", "datapath", "engines", "kernel", "layouts", "model.py", "names.py", "observe", "plan",
    "policy", "runtime", "traffic", "wire",
)  # fmt: skip
"""Whatever both sides of a keeper's connection have to agree on; not how it is shown."""


@cache
def code_version() -> str:
    """Return 16 hexadecimal digits: equal where keeper and caller understand each other.

    It follows from the files themselves, so that nobody has to count. Takes milliseconds.
    """
    digest = hashlib.sha256()
    for path in sorted(_files()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _files() -> list[Path]:
    found = [one for name in _SPOKEN for one in _python(_PACKAGE / name)]
    # both sides open the same pinned maps, whose layout the C sources decide
    return found + [one for one in SOURCES.rglob("*") if one.suffix in (".c", ".h")]


def _python(path: Path) -> list[Path]:
    return [path] if path.suffix == ".py" else list(path.rglob("*.py"))
