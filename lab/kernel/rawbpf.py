"""Bare bpf(2) calls, for asking a kernel what it can do: no compiler, no object files.

libbpf of Debian 12 does not know the newest program and link types; the system call needs only
their numbers. Errors are OSError with the kernel's errno, which is the answer being looked for.
Instruction encoding: Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from lab.kernel.libbpf import lib
from lab.kernel.syscalls import bpf

VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")
KPROBE_PMU = Path("/sys/bus/event_source/devices/kprobe/type")

BTF_ENUM, BTF_TYPEDEF, BTF_FUNC = 6, 8, 12
MAP_SOCKMAP = 15

_MAP_CREATE, _PROG_LOAD, _PROG_ATTACH, _RAW_TRACEPOINT_OPEN, _LINK_CREATE = 0, 5, 8, 17, 28
_SYS_PERF_EVENT_OPEN = 298
_PERF_EVENT_IOC_SET_BPF = 0x40042408
_PERF_ATTR_BYTES = 120
_PERF_FLAG_FD_CLOEXEC = 1 << 3
_LICENSE = b"GPL\0"
_PSEUDO_KFUNC_CALL = 2

_libc = ctypes.CDLL(None, use_errno=True)


def instruction(
    code: int, *, to: int = 0, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    """Return one 8-byte BPF instruction."""
    return struct.pack("<BBhi", code, source << 4 | to, offset, value)


def returning(value: int) -> bytes:
    """Return a program that does nothing but return ``value``."""
    return instruction(0xB7, value=value) + instruction(0x95)


def calling_kfunc(type_id: int) -> bytes:
    """Return a program that hands its context to a kernel function and returns 0."""
    return instruction(0x85, source=_PSEUDO_KFUNC_CALL, value=type_id) + returning(0)


@contextmanager
def loaded(
    kind: int, code: bytes, *, expected_attach: int = 0, kernel_type: int = 0
) -> Iterator[int]:
    """Load a program, yield its descriptor, close it.

    Args:
        kind: ``enum bpf_prog_type``.
        code: instructions.
        expected_attach: ``enum bpf_attach_type`` where the type needs it.
        kernel_type: BTF id of the tracepoint or function for tracing and LSM programs.

    Raises:
        OSError: the kernel refused it.
    """
    code_buffer = ctypes.create_string_buffer(code, len(code))
    license_buffer = ctypes.create_string_buffer(_LICENSE)
    attributes = struct.pack(
        "<IIQQIIQII16sIIIIQIIQIIII",
        *(kind, len(code) // 8, ctypes.addressof(code_buffer), ctypes.addressof(license_buffer)),
        *(0, 0, 0, 0, 0, b"lab_probe", 0, expected_attach, 0, 0, 0, 0, 0, 0, 0, kernel_type, 0, 0),
    )
    fd, _ = bpf(_PROG_LOAD, attributes)
    try:
        yield fd
    finally:
        os.close(fd)


def link(program: int, target: int, attach: int, extra: bytes = b"") -> None:
    """Attach by a bpf_link and take it off again.

    Args:
        program: descriptor of the program.
        target: descriptor (cgroup, network namespace) or interface index.
        attach: ``enum bpf_attach_type``.
        extra: what this kind of link needs besides, as in ``union bpf_attr.link_create``.

    Raises:
        OSError: the kernel refused it.
    """
    made, _ = bpf(_LINK_CREATE, struct.pack("<IIII", program, target, attach, 0) + extra)
    os.close(made)


def trace(program: int) -> None:
    """Attach a tp_btf, fentry or LSM program where its kernel type says, and take it off again.

    Raises:
        OSError: the kernel refused it.
    """
    made, _ = bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program))
    os.close(made)


def attach_to_sockmap(program: int, attach: int) -> None:
    """Make a map of sockets, attach the program to it, drop both.

    Raises:
        OSError: the kernel refused it.
    """
    sockets, _ = bpf(_MAP_CREATE, struct.pack("<IIIII", MAP_SOCKMAP, 4, 4, 1, 0))
    try:
        bpf(_PROG_ATTACH, struct.pack("<IIII", sockets, program, attach, 0))
    finally:
        os.close(sockets)


def kprobe_event(function: str) -> int:
    """Return the descriptor of a new perf event: the entry of a kernel function.

    Args:
        function: its name with whatever the compiler appended (``ip_rcv_finish_core.constprop.0``).

    Raises:
        OSError: the kernel has no kprobes or refused it.
    """
    kind = int(KPROBE_PMU.read_text())
    name = ctypes.create_string_buffer(function.encode())
    # perf_event_attr: type, size, config, period, sample_type, read_format, flags, wake-up,
    # breakpoint type, and config1: here the function's name
    attributes = struct.pack(
        "<IIQQQQQIIQ", kind, _PERF_ATTR_BYTES, *[0] * 7, ctypes.addressof(name)
    )
    buffer = ctypes.create_string_buffer(attributes, _PERF_ATTR_BYTES)
    fd: int = _libc.syscall(_SYS_PERF_EVENT_OPEN, buffer, -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def kprobe(program: int, function: str) -> None:
    """Attach a kprobe program to the entry of a kernel function and take it off again.

    Raises:
        OSError: the kernel has no kprobes or refused it.
    """
    fd = kprobe_event(function)
    try:
        fcntl.ioctl(fd, _PERF_EVENT_IOC_SET_BPF, program)
    finally:
        os.close(fd)


@cache
def _vmlinux() -> int:
    library = lib()
    library.btf__parse_raw.restype = ctypes.c_void_p
    library.btf__parse_raw.argtypes = (ctypes.c_char_p,)
    library.btf__find_by_name_kind.restype = ctypes.c_int
    library.btf__find_by_name_kind.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint)
    return library.btf__parse_raw(str(VMLINUX_BTF).encode()) or 0


def kernel_type(name: str, kind: int) -> int:
    """Return the BTF id of a type of the running kernel.

    Raises:
        OSError: the kernel has no BTF, or no type of that name and kind.
    """
    types = _vmlinux()
    if not types:
        raise FileNotFoundError(2, f"{VMLINUX_BTF} is missing")
    found: int = lib().btf__find_by_name_kind(types, name.encode(), kind)
    if found < 0:
        raise FileNotFoundError(2, f"the kernel has no {name}")
    return found
