"""The newer tc hook: programs in an array of the device, with no qdisc and no classifier between.

Like a filter of clsact, a program attached here stays with its interface and is exchanged
atomically. libbpf 1.1 does not know the hook, so the system calls are made here.
Everything about interfaces happens in the network namespace of the calling thread.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from lab.kernel.bpf import Program
from lab.kernel.bpfattach import TCX, Direction, attach_refused
from lab.kernel.syscalls import bpf

_PROG_ATTACH, _PROG_QUERY = 8, 16
_REPLACE = 1 << 2
_MOST = 16
# too old for the hook: the attach type is unknown
_UNKNOWN = (errno.EINVAL, errno.EOPNOTSUPP)


def _attached(ifindex: int, direction: Direction) -> list[int] | None:
    """Return ids of the programs that are no links' (a tracer's are), or None without the hook."""
    programs, links = (ctypes.c_uint32 * _MOST)(), (ctypes.c_uint32 * _MOST)()
    packed = struct.pack(
        "<IIIIQIIQQQQ",
        *(ifindex, TCX[direction], 0, 0),
        *(ctypes.addressof(programs), _MOST, 0, 0),
        *(ctypes.addressof(links), 0, 0),
    )
    try:
        _, told = bpf(_PROG_QUERY, packed)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        if error.errno in _UNKNOWN:
            return None
        what = f"asking for the tc programs of interface {ifindex}"
        raise attach_refused(what, error) from error
    (count,) = struct.unpack_from("<I", told, 24)
    return [programs[place] for place in range(count) if not links[place]]


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
            *(ifindex, program.fd, TCX[direction]),
            *(_REPLACE if old else 0, old.fd if old else 0, 0, 0),
        )
        bpf(_PROG_ATTACH, packed)
    except OSError as error:
        where = f"interface {ifindex} {direction.name.lower()}"
        raise attach_refused(f"attaching {program.name} to {where}", error) from error
    finally:
        if old is not None:
            old.close()
    return True


def query(ifindex: int, direction: Direction) -> int | None:
    """Return the id of the program attached to one side of an interface, or None.

    Raises:
        KernelError: no such interface in this namespace.
    """
    there = _attached(ifindex, direction)
    return there[0] if there else None
