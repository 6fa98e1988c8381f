"""Which kernel functions can be probed at entry, and why others cannot."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lab.kernel.tracing import KALLSYMS

TYPES = Path("/sys/kernel/btf")


@cache
def _functions() -> dict[str, list[tuple[str, str]]]:
    """Name without what the compiler appended -> (whole name, module)."""
    found: dict[str, list[tuple[str, str]]] = {}
    with KALLSYMS.open() as lines:
        for line in lines:
            words = line.split()
            if words[1] in "tT":
                module = words[3].strip("[]") if len(words) > 3 else "vmlinux"
                found.setdefault(words[2].partition(".")[0], []).append((words[2], module))
    return found


def version(name: str) -> str:
    """Return the one version that the compiler left of a function in the kernel, empty if none.

    A kprobe can be put there, though nothing says which arguments that version takes.
    """
    left = [v for v, _ in _functions().get(name, []) if not v.endswith(".cold")]
    return left[0] if len(left) == 1 else ""


def why_not(name: str) -> str:
    """Return why no probe can be put on entry of a kernel function; empty if one can.

    The compiler may have inlined it into every caller, or left only a version of it that takes
    other arguments than its types say. Modules must be loaded.
    """
    versions = _functions().get(name, [])
    whole = next((module for version, module in versions if version == name), None)
    if whole is None:
        other = next((v for v, _ in versions if not v.endswith(".cold")), "")
        if other:
            return f"the compiler left only {other}"
        return "inlined here, or its module is not loaded"
    try:
        types = (TYPES / whole).read_bytes()
    except OSError as error:
        return f"the types of {whole} are not known: {error.strerror}"
    if b"\0" + name.encode() + b"\0" not in types:
        return f"its types are not among those of {whole}"
    return ""
