"""The kernel headers that bcc compiles against, and how well they fit the running kernel."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from lab.errors import PrerequisiteError

MODULES = Path("/lib/modules")
SOURCES = Path("/usr/src")
SOURCE_VARIABLE = "BCC_KERNEL_SOURCE"
_READY = Path("include/generated/autoconf.h")
_PREFIX = "linux-headers-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """A set of kernel headers.

    Attributes:
        release: of the kernel they are of.
        source: what bcc's ``BCC_KERNEL_SOURCE`` must say, None where bcc finds them by itself.
        flags: more flags for its compiler.
        fit: they are the running kernel's own. If not, what a hook's context and the kernel's
            interface to programs give is right, but inner structures may be laid out otherwise.
    """

    release: str
    source: Path | None = None
    flags: tuple[str, ...] = ()
    fit: bool = True


def find_headers(modules: Path = MODULES, sources: Path = SOURCES) -> Headers:
    """Return the running kernel's headers, or the newest of Debian's that are installed.

    Args:
        modules: where kernels keep a link to their headers.
        sources: where Debian's packages put them.

    Raises:
        PrerequisiteError: there are none.
    """
    running = platform.release()
    if given := os.environ.get(SOURCE_VARIABLE):
        return Headers(release=Path(given).name.removeprefix(_PREFIX), source=Path(given))
    if (modules / running / "build" / _READY).exists():
        return Headers(release=running)
    found = [folder for folder in sources.glob(f"{_PREFIX}*") if (folder / _READY).exists()]
    if not found:
        raise PrerequisiteError(
            f"bcc finds no kernel headers: none for {running} in {modules}, none in {sources}",
            hint="sudo apt-get install linux-headers-amd64",
        )
    # by numbers, not by text: 6.1.0-10 is newer than 6.1.0-9
    build = max(found, key=_version)
    machine = "x86" if platform.machine() == "x86_64" else platform.machine()
    parts = (f"arch/{machine}/include/generated", "include",
             f"arch/{machine}/include/generated/uapi", "include/generated/uapi")  # fmt: skip
    return Headers(
        release=build.name.removeprefix(_PREFIX),
        source=_common(build) or build,
        flags=tuple(f"-I{build / part}" for part in parts),
        fit=False,
    )


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", folder.name))


def _common(build: Path) -> Path | None:
    """Debian splits its headers: what does not depend on the configuration lies beside them."""
    name = re.sub(r"-[a-z0-9]+$", "-common", build.name)
    common = build.with_name(name)
    return common if common.exists() else None
