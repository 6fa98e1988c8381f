"""Control groups (version 2): where a pod's processes are born, so that its hooks see them."""

from __future__ import annotations

import os
from pathlib import Path

from lab.errors import KernelError, PrerequisiteError


def unified_root() -> Path:
    """Return where cgroup version 2 is mounted.

    Raises:
        PrerequisiteError: it is not mounted.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        # not always at /sys/fs/cgroup: a machine with version 1 has it in a folder below
        if rest.split()[0] == "cgroup2":
            return Path(fields.split()[4])
    raise PrerequisiteError(
        "cgroup version 2 is not mounted",
        hint="mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd",
    )


def create(path: Path) -> None:
    """Make a control group and its parents; an existing one is fine.

    Raises:
        KernelError: the file system refused it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KernelError(f"cgroup {path}: {error.strerror}", hint="run as root") from None


def move_self(path: Path) -> None:
    """Move the calling process into a control group.

    Raises:
        KernelError: the group is gone or refuses.
    """
    move(os.getpid(), path)


def move(pid: int, path: Path) -> None:
    """Move a process into a control group.

    Raises:
        KernelError: the group or the process is gone.
    """
    try:
        (path / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise KernelError(f"cgroup {path}: {error.strerror}", hint="is the lab up?") from None


def remove(path: Path) -> bool:
    """Remove an empty tree of control groups; True once nothing of it is left."""
    if not path.exists():
        return True
    # deepest first: a group can go only once it has no children
    for folder in sorted(path.rglob("*"), reverse=True):
        if folder.is_dir():
            _rmdir(folder)
    return _rmdir(path)


def _rmdir(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        # Still populated: processes that die asynchronously; the next command sweeps again.
        return not path.exists()
    return True
