"""Compile ``bpf/*.c`` with clang, once per content.

The name of a compiled object contains a hash of everything that went in: its source, every header
of the source tree, the flags and the compiler. An object is moved into place only when whole, so
two builds at once, a full disk or Ctrl-C leave nothing broken behind. No root needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from lab.errors import BuildError, PrerequisiteError
from lab.kernel import process

SOURCES = (Path(__file__).resolve().parents[1] / "_bpf").resolve()
"""The datapath's sources: ``bpf/`` of a clone, or the copy in an installed package."""

FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-std=gnu99", "-Wall", "-Wextra", "-Werror")
# without -Wextra and -Werror
FOREIGN_FLAGS = FLAGS[:-2]
"""For programs that are not the lab's: their authors choose their own warnings."""
_KEPT_BUILDS = 8
_KEPT_SECONDS = 6 * 3600.0  # whoever built it may load it again: labs that are up
_SAID_LINES = 30
_OUTSIDE_HEADERS = ("bpf/bpf_helpers.h", "bpf/bpf_helper_defs.h", "linux/bpf.h")

Progress = Callable[[str], None]


def cache_directory() -> Path:
    """Return where compiled objects are kept, created if missing.

    ``LAB_CACHE_DIR`` if set; else /var/cache for root, the user's own cache for others, and a
    folder of the user's below the temporary one where there is no home to write to.

    Raises:
        PrerequisiteError: no such folder can be created.
    """
    problem: OSError | None = None
    for folder in _cache_candidates():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = problem or error
        else:
            return folder
    raise PrerequisiteError(
        f"the build cache {_cache_candidates()[0]} cannot be created: "
        f"{problem.strerror if problem else ''}",
        hint="set LAB_CACHE_DIR to a folder you may write to",
    )


def _cache_candidates() -> tuple[Path, ...]:
    name = "ebpf-datapath-lab"
    if given := os.environ.get("LAB_CACHE_DIR"):
        return (Path(given),)
    if os.geteuid() == 0:
        return (Path("/var/cache") / name,)
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / name, Path(tempfile.gettempdir()) / f"{name}-{os.geteuid()}"


@lru_cache(maxsize=1)
def _system_includes() -> tuple[Path, ...]:
    folder = Path("/usr/include") / f"{platform.machine()}-linux-gnu"
    return (folder,) if folder.is_dir() else ()


# for what is large and changes with a package only: size and time instead of its content
def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path}:{status.st_size}:{status.st_mtime_ns}"


def _tree_digest(root: Path, flags: Sequence[str]) -> bytes:
    """Hash what all objects of one source tree share: headers, flags, compiler, kernel headers."""
    digest = hashlib.sha256()
    # behind the link: /usr/bin/clang stays the same name when another version takes its place
    clang = Path(process.require("clang")).resolve()
    digest.update(_stamp(clang).encode())
    digest.update("\0".join(flags).encode())
    for folder in (Path("/usr/include"), *_system_includes()):
        for name in _OUTSIDE_HEADERS:
            if (folder / name).exists():
                digest.update(_stamp(folder / name).encode())
    # every header counts for every source: to ask clang which one includes what costs more than now
    # and then a compilation too many
    for header in sorted(root.rglob("*.h")):
        digest.update(str(header.relative_to(root)).encode())
        digest.update(header.read_bytes())
    return digest.digest()


def _key(source: Path, shared: bytes) -> str:
    digest = hashlib.sha256(shared)
    digest.update(source.name.encode())
    try:
        digest.update(source.read_bytes())
    except OSError as error:
        raise BuildError(
            f"BPF source {source}: {error.strerror}", hint="see bpf/ for what there is"
        ) from error
    return digest.hexdigest()[:20]


def _headers_beside(source: Path, root: Path, flags: Sequence[str]) -> bytes:
    """Hash the headers that a source from outside the tree includes; nothing for one inside."""
    if root in source.resolve().parents:
        return b""
    command = ["clang", *flags, *_includes(root), "-MM", str(source.resolve())]
    done = process.run(command, cwd=root, check=False, timeout_s=None)
    # a rule of make: the object, a colon, what it is made of; nothing if it does not compile
    named = done.stdout.partition(":")[2].replace("\\\n", " ").split()
    digest = hashlib.sha256()
    for path in map(Path, named):
        with contextlib.suppress(OSError):
            digest.update(path.read_bytes())
    return digest.digest()


def _includes(root: Path) -> list[str]:
    return [f"-I{folder}" for folder in (root, root / "include", *_system_includes())]


def _compile(source: Path, root: Path, flags: Sequence[str], target: Path) -> None:
    """Compile into a temporary file beside ``target`` and move it there."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise _no_room(target.parent, error.strerror or "") from error
    os.close(handle)
    staged = Path(name)
    try:
        command = [
            "clang",
            *flags,
            *_includes(root),
            "-c",
            str(source.resolve()),
            "-o",
            str(staged),
        ]
        done = process.run(command, cwd=root, check=False, timeout_s=None)
        if done.returncode != 0:
            if "No space left on device" in done.stderr:
                raise _no_room(target.parent, "No space left on device")
            said = done.stderr.strip().splitlines()[:_SAID_LINES]
            raise BuildError(
                f"{source.name} does not compile:\n  " + "\n  ".join(said),
                hint="fix the first error; clang's line numbers are those of the source",
            )
        # a full disk may leave an empty file, whatever clang says
        if staged.read_bytes()[:4] != b"\x7fELF":
            raise _no_room(target.parent, "the compiler left no object")
        # the name says what went in, so whoever builds the same at the same time moves the same
        # bytes
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)


def _no_room(folder: Path, cause: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"cannot write to the build cache {folder}: {cause}",
        hint="free some space there, or set LAB_CACHE_DIR to another folder",
    )


def _prune(folder: Path, stem: str) -> None:
    """Forget all but the newest builds of one source, and those that are in use."""
    used: dict[Path, float] = {}
    for path in folder.glob(f"{stem}-*.o"):
        with contextlib.suppress(FileNotFoundError):  # somebody else forgets, too
            used[path] = path.stat().st_mtime
    for old in sorted(used, key=lambda path: used[path])[:-_KEPT_BUILDS]:
        if time.time() - used[old] > _KEPT_SECONDS:
            old.unlink(missing_ok=True)


def _touch(target: Path) -> bool:
    """Whether a build is there; it then counts as used now."""
    try:
        # the time of the last use, which is what _prune goes by
        os.utime(target)
    except FileNotFoundError:
        return False
    except OSError:
        return target.exists()  # a cache that is only read
    return True


def build(
    sources: Sequence[Path],
    *,
    root: Path = SOURCES,
    flags: Sequence[str] = FLAGS,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Return the compiled object of each source, compiling those the cache does not hold.

    Sources are compiled side by side; with everything cached this reads and hashes the tree only.

    Args:
        sources: C files; they find headers from ``root`` and ``root``/include.
        root: all ``*.h`` below it count as input; of a source elsewhere, what it includes does.
        flags: of clang, before the include folders.
        cache: folder for the objects; `cache_directory` if None.
        progress: told, from any thread, one line per source that is really compiled.

    Raises:
        PrerequisiteError: clang is missing, or the cache cannot be written (disk full).
        BuildError: a source is missing or does not compile; carries clang's words.
    """
    shared = _tree_digest(root, flags)
    folder = cache_directory() if cache is None else cache
    targets = [
        folder / f"{one.stem}-{_key(one, shared + _headers_beside(one, root, flags))}.o"
        for one in sources
    ]
    missing = [(s, t) for s, t in zip(sources, targets, strict=True) if not _touch(t)]

    def make(work: tuple[Path, Path]) -> None:
        source, target = work
        if progress is not None:
            progress(f"compiling {source.name}")
        _compile(source, root, flags, target)
        _prune(folder, source.stem)

    if missing:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(make, missing))
    return tuple(targets)


def build_objects(names: Sequence[str], *, progress: Progress | None = None) -> dict[str, Path]:
    """Return the compiled objects of the datapath by name (``bpf_lxc``), building where needed.

    Raises:
        PrerequisiteError: as `build`.
        BuildError: as `build`.
    """
    paths = build([SOURCES / f"{name}.c" for name in names], progress=progress)
    return dict(zip(names, paths, strict=True))
