"""Private mounts: what the keeper sees, and what a process inside a node or pod sees."""

from __future__ import annotations

from pathlib import Path

from lab.kernel.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    setns,
    unmount,
    unshare,
)

_QUIET = MS_NOSUID | MS_NODEV | MS_NOEXEC
NETNS_DIR = "/run/netns"


def make_private() -> None:
    """Give the process its own ``/proc`` and an empty ``/run``; nothing propagates outside.

    Needs: a mount namespace and a PID namespace of its own.
    """
    # first of all: a shared root would carry the new /proc and /run into the machine's own view
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", _QUIET)
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    Path(NETNS_DIR).mkdir()


def make_bpffs(path: str) -> None:
    """Mount a BPF file system of its own at ``path``; pins in it go with the last mount."""
    Path(path).mkdir(parents=True, exist_ok=True)
    mount("bpf", path, "bpf", _QUIET, "mode=0700")


def name_netns(fd: int, name: str) -> None:
    """Make ``ip netns`` know a namespace by name inside the private mounts."""
    target = f"{NETNS_DIR}/{name}"
    Path(target).touch()
    # the mount holds a reference of its own: the namespace lives until it is unmounted
    mount(f"/proc/self/fd/{fd}", target, flags=MS_BIND)


def forget_netns(name: str) -> None:
    """Take back what :func:`name_netns` did, so that the namespace can go."""
    unmount(f"{NETNS_DIR}/{name}")
    Path(f"{NETNS_DIR}/{name}").unlink(missing_ok=True)


def enter_view(netns: int, bpffs: str | None, state: str | None) -> None:
    """Move the calling process into a node's or pod's view of the machine.

    Afterwards ``/sys`` shows that network namespace, ``/sys/fs/bpf`` is the node's BPF file
    system and ``/run/cilium`` its state directory.

    Args:
        netns: file descriptor of the network namespace.
        bpffs: where the node's BPF file system is mounted, or None for an empty one.
        state: the node's state directory, or None.

    Needs: a single-threaded process.
    """
    setns(netns, CLONE_NEWNET)
    unshare(CLONE_NEWNS)
    # sysfs shows the network namespace of its mounter: mounted anew, after setns
    mount("sysfs", "/sys", "sysfs", _QUIET)
    if bpffs:
        mount(bpffs, "/sys/fs/bpf", flags=MS_BIND)
    # under the fresh sysfs the folder is empty until the hierarchy is mounted there again
    if Path("/sys/fs/cgroup").is_dir():
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2", _QUIET)
    if state:
        Path("/run/cilium").mkdir(exist_ok=True)
        mount(state, "/run/cilium", flags=MS_BIND)
