"""System calls that Python 3.11 does not offer: namespaces, mounts and bpf(2) itself."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from lab.errors import KernelError, PrerequisiteError, UnsupportedError

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_NAME = 15

_SYS_BPF = 321  # x86-64's number
_BPF_ATTR_BYTES = 128
_BUILT_BY = {"bpf": "CONFIG_BPF_SYSCALL", "cgroup2": "CONFIG_CGROUPS"}
"""Kernel options without which mount(2) does not know a file system."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        if number == errno.EPERM:
            raise PrerequisiteError(
                f"{what}: not permitted",
                hint="run as root (sudo), outside an unprivileged container",
            )
        raise KernelError(f"{what}: {os.strerror(number)}", hint="see `lab doctor`")
    return result


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces (``unshare(2)``).

    Raises:
        PrerequisiteError: not root.
        KernelError: any other refusal, with the errno's text.
    """
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind ``fd`` (``setns(2)``).

    Raises:
        KernelError: the fd is no namespace of that kind.
    """
    _check(_libc.setns(fd, kind), f"setns(fd {fd})")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Mount ``source`` at ``target`` (``mount(2)``) in the caller's mount namespace.

    Raises:
        PrerequisiteError: not root, or a container that must not mount.
        UnsupportedError: the kernel was built without this file system.
        KernelError: any other refusal, with source, target and errno.
    """
    result = _libc.mount(
        source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), data.encode()
    )
    what, number = f"mount {fstype or source} at {target}", ctypes.get_errno()
    # EPERM: no capability, or seccomp; EACCES: a security module such as a container's AppArmor
    # profile, which refuses root as well
    if result < 0 and number in (errno.EPERM, errno.EACCES):
        raise PrerequisiteError(
            f"{what}: not permitted",
            hint="run as root (sudo); inside a container, one that may mount (--privileged)",
        )
    if result < 0 and number == errno.ENODEV and fstype:
        option = _BUILT_BY.get(fstype)
        raise UnsupportedError(
            f"{what}: this kernel has no file system {fstype}"
            + (f" ({option} is off)" if option else ""),
            hint="run the same on Debian's kernel: lab vm -- COMMAND",
        )
    _check(result, what)


def unmount(target: str) -> None:
    """Take a mount away once nobody uses it (``umount2(2)`` with ``MNT_DETACH``).

    Raises:
        KernelError: with target and errno.
    """
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """Return the result of ``bpf(2)`` and the attributes as the kernel left them.

    For what libbpf 1.1 does not know; whatever the attributes point at is the caller's to keep.

    Raises:
        OSError: the kernel refused; its number is the answer where an ability is asked for.
    """
    # the kernel takes a longer attribute than it knows only if the rest is zero
    buffer = ctypes.create_string_buffer(attributes, _BPF_ATTR_BYTES)
    result: int = _libc.syscall(_SYS_BPF, command, buffer, _BPF_ATTR_BYTES)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result, buffer.raw


def raise_file_limit() -> None:
    """Allow this process, and what it starts, as many open files as the machine's limit lets it.

    A lab holds a few descriptors for each namespace, and more while its programs are loaded; the
    usual soft limit of 1024 is there for old programs that use ``select``.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_process_name(name: str) -> None:
    """Give the calling process a name of at most 15 bytes, as ``ps`` shows it."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


@contextmanager
def inside_netns(fd: int, home: int) -> Iterator[None]:
    """Run the block in the network namespace ``fd``; the thread is back in ``home`` after it.

    Raises:
        KernelError: the namespace cannot be entered.
    """
    setns(fd, CLONE_NEWNET)
    try:
        yield
    finally:
        setns(home, CLONE_NEWNET)
