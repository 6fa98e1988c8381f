"""A bpffs that is mounted nowhere: reachable through a descriptor, gone when that is closed."""

import ctypes
import os
from contextlib import contextmanager
from pathlib import Path

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432  # the same on every architecture
FSCONFIG_CMD_CREATE = 6
_libc = ctypes.CDLL(None, use_errno=True)


def _call(*arguments: object) -> int:
    code = _libc.syscall(*arguments)
    if code < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return code


@contextmanager
def detached_bpffs():
    """Yield a path into a new bpffs, usable by this process and, by its pid, by others."""
    context = _call(FSOPEN, b"bpf", 0)
    try:
        _call(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        mount = _call(FSMOUNT, context, 0, 0)
    finally:
        os.close(context)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{mount}")
    finally:
        os.close(mount)
