"""The newer tc hook: programs in an array of the device, with no qdisc and no classifier between.

Like a filter of clsact, a program attached here stays with its interface and is exchanged
atomically. libbpf 1.1 does not know the hook, so the system calls are made here (x86-64's number).
Everything about interfaces happens in the network namespace of the calling thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from lab.errors import KernelError
from lab.kernel.bpf import Program
from lab.kernel.bpfattach import Direction

_SYS_BPF = 321
_PROG_ATTACH, _PROG_QUERY = 8, 16
_ATTACH_TYPES = {Direction.INGRESS: 46, Direction.EGRESS: 47}
_REPLACE = 1 << 2
_MOST = 16
_ATTR_BYTES = 128
# too old for the hook: the attach type is unknown
_UNKNOWN = (errno.EINVAL, errno.EOPNOTSUPP)
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """Return 0, or the error's number."""
    if _libc.syscall(_SYS_BPF, command, attributes, _ATTR_BYTES) < 0:
        return ctypes.get_errno()
    return 0


def _attached(ifindex: int, direction: Direction) -> list[int] | None:
    """Return ids of the programs that are no links' (a tracer's are), or None without the hook."""
    programs, links = (ctypes.c_uint32 * _MOST)(), (ctypes.c_uint32 * _MOST)()
    packed = struct.pack(
        "<IIIIQIIQQQQ",
        *(ifindex, _ATTACH_TYPES[direction], 0, 0),
        *(ctypes.addressof(programs), _MOST, 0, 0),
        *(ctypes.addressof(links), 0, 0),
    )
    attributes = ctypes.create_string_buffer(packed, _ATTR_BYTES)
    error = _bpf(_PROG_QUERY, attributes)
    if error == errno.ENOENT:
        return []
    if error in _UNKNOWN:
        return None
    _check(error, f"asking for the tc programs of interface {ifindex}")
    (count,) = struct.unpack_from("<I", attributes.raw, 24)
    return [programs[place] for place in range(count) if not links[place]]


def _check(error: int, what: str) -> None:
    if error:
        raise KernelError(
            f"{what}: {os.strerror(error)} ({errno.errorcode.get(error, error)})",
            hint="see `lab doctor` for what this kernel can attach",
        )


def attach(program: Program, ifindex: int, direction: Direction) -> bool:
    """Attach, or atomically replace, the program of one side of an interface.

    Returns:
        False where the kernel (before 6.6) has no such hook: nothing is attached.

    Raises:
        KernelError: no such interface in this namespace, or the program is not SCHED_CLS.
    """
    there = _attached(ifindex, direction)
    if there is None:
        return False
    # the kernel refuses to replace a program by itself
    if there == [program.info().id]:
        return True
    old = Program.from_id(there[0]) if there else None
    try:
        packed = struct.pack(
            "<IIIIIIQ",
            *(ifindex, program.fd, _ATTACH_TYPES[direction]),
            *(_REPLACE if old else 0, old.fd if old else 0, 0, 0),
        )
        error = _bpf(_PROG_ATTACH, ctypes.create_string_buffer(packed, _ATTR_BYTES))
    finally:
        if old is not None:
            old.close()
    _check(error, f"attaching {program.name} to interface {ifindex} {direction.name.lower()}")
    return True


def query(ifindex: int, direction: Direction) -> int | None:
    """Return the id of the program attached to one side of an interface, or None.

    Raises:
        KernelError: no such interface in this namespace.
    """
    there = _attached(ifindex, direction)
    return there[0] if there else None
