"""Which labs run: one directory each, with the owner's pid and start time to tell the dead."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lab.errors import InputError, PrerequisiteError
from lab.kernel import cgroup
from lab.names import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the registry knows of a lab.

    Attributes:
        pid: of the keeper, in the machine's PID namespace.
        start_time: of that process in clock ticks since boot, so that a recycled pid is told apart.
        cgroup: path of the lab's control group, empty without one.
        code: version of the code that the keeper runs, empty for one too old to tell.
    """

    name: str
    pid: int
    start_time: int
    engine: str
    nodes: tuple[str, ...]
    pods: tuple[str, ...]
    cgroup: str = ""
    code: str = ""

    @property
    def alive(self) -> bool:
        """Whether the keeper still runs."""
        return start_time(self.pid) == self.start_time


def run_dir() -> Path:
    """Return the directory of the registry: ``$LAB_RUN_DIR`` or ``/run/lab``."""
    return Path(os.environ.get("LAB_RUN_DIR", "/run/lab"))


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if it is gone or a zombie."""
    try:
        # the name stands in parentheses and may hold spaces and parentheses: cut behind the last
        # one
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def socket_path(name: str) -> Path:
    """Return where a lab's keeper listens."""
    return run_dir() / name / "keeper.sock"


def reserve(record: Record) -> None:
    """Enter a lab into the registry, once; sweeps a dead lab of the same name first.

    Raises:
        InputError: a living lab has the name.
        PrerequisiteError: the registry cannot be written.
    """
    sweep()
    target = run_dir() / record.name
    draft = run_dir() / f".{record.name}.{os.getpid()}"
    try:
        draft.mkdir(parents=True, exist_ok=True)
        write(record, draft)
        # renaming a directory onto one that is not empty fails: of two that try at once, one wins
        draft.rename(target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if target.exists():
            raise InputError(
                f"a lab called {record.name!r} is already up",
                hint=f"choose another --name, or `lab down {record.name}`",
            ) from None
        raise PrerequisiteError(
            f"registry {run_dir()}: {error.strerror}", hint="run as root, or set LAB_RUN_DIR"
        ) from None


def write(record: Record, folder: Path | None = None) -> None:
    """Write a lab's record, atomically."""
    folder = folder or run_dir() / record.name
    draft = folder / f"keeper.json.{os.getpid()}"
    draft.write_text(json.dumps(asdict(record)))
    draft.rename(folder / "keeper.json")


def read(folder: Path) -> Record | None:
    """Return the record in a directory of the registry, or None if there is none."""
    try:
        data = json.loads((folder / "keeper.json").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    # a keeper of another version may have written more, or less
    known = {one.name: data[one.name] for one in fields(Record) if one.name in data}
    try:
        return Record(**{**known, "nodes": tuple(data["nodes"]), "pods": tuple(data["pods"])})
    except (KeyError, TypeError):
        return None


def labs() -> tuple[Record, ...]:
    """Return the labs that run, by name."""
    if not run_dir().is_dir():
        return ()
    records = (read(folder) for folder in sorted(run_dir().iterdir()) if folder.name[0] != ".")
    return tuple(record for record in records if record and record.alive)


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait for whoever else is in such a block of this lab, in any process; then have it alone."""
    try:
        lock = os.open(run_dir() / name, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        # the lab is gone, as its keeper will say when asked
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def find(name: str) -> Record:
    """Return the running lab of that name.

    Raises:
        InputError: there is none; the hint names the nearest.
    """
    for record in labs():
        if record.name == name:
            return record
    known = [record.name for record in labs()]
    raise InputError(
        f"no lab called {name!r} is up",
        hint=did_you_mean(name, known) if known else "start one with `lab up`",
    )


def sweep() -> tuple[str, ...]:
    """Remove what dead labs could not: their registry entry and empty control groups.

    Only entries whose owner (pid and start time) is gone are touched. Needs root to do
    anything; without it nothing happens.

    Returns:
        names of the labs swept.
    """
    if os.geteuid() != 0:
        return ()
    swept = []
    for folder in run_dir().iterdir() if run_dir().is_dir() else ():
        record = read(folder)
        if record is not None and not record.alive and forget(record):
            swept.append(record.name)
    # a group whose entry is gone already, or that was entered under another $LAB_RUN_DIR: its name
    # says whose it was
    for group in cgroup.unified_root().glob("lab-*-*-*"):
        name, pid, started = group.name.removeprefix("lab-").rsplit("-", 2)
        ours = pid.isdecimal() and started.isdecimal()
        if ours and start_time(int(pid)) != int(started) and cgroup.remove(group):
            swept.append(name)
    return tuple(dict.fromkeys(swept))


def forget(record: Record) -> bool:
    """Remove a lab's registry entry and control group; True once nothing is left."""
    gone = not record.cgroup or cgroup.remove(Path(record.cgroup))
    if gone:
        folder = run_dir() / record.name
        # somebody else may have taken the name meanwhile
        if (found := read(folder)) is not None and found.pid == record.pid:
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            # The directory of the registry goes with its last lab.
            run_dir().rmdir()
    return gone
