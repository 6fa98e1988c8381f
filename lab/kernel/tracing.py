"""What a tracer needs of the kernel beyond loading: attaching to hooks that libbpf 1.1 does not
know, reading a ring buffer in bulk, and the names behind addresses and numbers.

Nothing here is pinned: links and rings go with the process that holds them.
"""

from __future__ import annotations

import bisect
import ctypes
import errno
import mmap
import os
import re
import struct
from enum import IntEnum
from functools import cache
from pathlib import Path

from lab.errors import KernelError, UnsupportedError
from lab.kernel.bpf import Program
from lab.kernel.bpfattach import TCX, Direction, Link, attach_refused
from lab.kernel.bpfmap import BpfMap
from lab.kernel.btf import Btf
from lab.kernel.syscalls import bpf

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
KALLSYMS = Path("/proc/kallsyms")

# libbpf 1.1 has no wrapper for these links, so the system call is made here
_BPF_LINK_CREATE = 28
_ATTACH_NETFILTER = 45
_ATTACH_SK_LOOKUP = 36
_BEFORE = 1 << 3
_PF_INET = 2
_INT_MIN = -(1 << 31)


class NetfilterHook(IntEnum):
    """``enum nf_inet_hooks``."""

    PREROUTING = 0
    LOCAL_IN = 1
    FORWARD = 2
    LOCAL_OUT = 3
    POSTROUTING = 4


# the kernel refuses the very first and last numbers: its own hooks must be there (conntrack's
# confirmation comes last)
_FIRST_PRIORITY = _INT_MIN + 1
_LAST_PRIORITY = -_INT_MIN - 2
_TRACERS = 16
_LONGEST_FUNCTION = 1 << 20


class _TakenError(Exception):
    """The place in the hook is held by somebody else."""


@cache
def _btf_bytes() -> bytes:
    try:
        return KERNEL_BTF.read_bytes()
    except OSError as error:
        raise UnsupportedError(
            f"the kernel describes no types in {KERNEL_BTF}: {error.strerror}",
            hint="use a kernel with CONFIG_DEBUG_INFO_BTF: lab vm -- ...",
        ) from error


@cache
def _btf_names() -> bytes:
    # the section of strings is less than half of it, and is searched dozens of times to arm
    data = _btf_bytes()
    header_bytes, _, _, offset, size = struct.unpack_from("<4x5I", data)
    return data[header_bytes + offset :][:size]


@cache
def kernel_knows(name: str) -> bool:
    """Return whether the running kernel's own BTF has something of this name.

    Args:
        name: of a type, function or tracepoint (``btf_trace_sk_data_ready``).

    Raises:
        UnsupportedError: the kernel carries no BTF at all.
    """
    return b"\0" + name.encode() + b"\0" in _btf_names()


@cache
def names_with_prefix(prefix: str) -> tuple[str, ...]:
    """Return the names in the running kernel's BTF that begin so, without that beginning.

    Raises:
        UnsupportedError: the kernel carries no BTF at all.
    """
    found = re.findall(b"\0" + prefix.encode() + rb"(\w+)(?=\0)", _btf_names())
    return tuple(name.decode() for name in found)


def functions() -> frozenset[str]:
    """Return the names of the kernel's functions and its modules', without compiler suffixes."""
    return frozenset((*_text()[1], *_loaded()[1]))


def _link_create(program: Program, target: int, kind: int, what: str, rest: bytes) -> Link:
    # union bpf_attr, link_create: program, target, attach type, then flags and the type's own
    attributes = struct.pack("<III", program.fd, target, kind) + rest
    try:
        fd, _ = bpf(_BPF_LINK_CREATE, attributes)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _TakenError from error
        raise attach_refused(f"attaching {program.name} to {what}", error) from error
    return Link(fd)


def attach_netfilter(program: Program, hook: NetfilterHook, *, first: bool) -> Link:
    """Attach to an IPv4 netfilter hook of the calling thread's network namespace.

    Args:
        program: loaded as ``ProgramType.NETFILTER``.
        hook: where.
        first: before every chain; else behind every chain. Several tracers take their places
            side by side.

    Raises:
        KernelError: the kernel (before 6.4) has no such links, or there are too many tracers.
    """
    what = f"netfilter {hook.name.lower()}"
    start, step = (_FIRST_PRIORITY, 1) if first else (_LAST_PRIORITY, -1)
    # a priority belongs to one BPF link per hook (EBUSY); the next tracer moves one place inwards
    for place in range(_TRACERS):
        rest = struct.pack("<IIIiI", 0, _PF_INET, hook, start + place * step, 0)
        try:
            return _link_create(program, 0, _ATTACH_NETFILTER, what, rest)
        except _TakenError:
            continue
    raise KernelError(
        f"{_TRACERS} tracers hold {what} already", hint="end one of them: each holds its own places"
    )


def attach_tcx(program: Program, ifindex: int, direction: Direction) -> Link:
    """Attach in front of every other tc program of an interface, clsact's included.

    The program passes on to the others by returning -1 (``TCX_NEXT``).

    Raises:
        KernelError: no such interface in this namespace, or the kernel (before 6.6) has no tcx.
    """
    what = f"tc {direction.name.lower()} of interface {ifindex}"
    rest = struct.pack("<I", _BEFORE)
    return _link_create(program, ifindex, TCX[direction], what, rest)


def attach_sk_lookup(program: Program) -> Link:
    """Attach to every look-up of a socket in the calling thread's network namespace.

    Raises:
        KernelError: the kernel (before 5.9) has no such links.
    """
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _link_create(program, namespace, _ATTACH_SK_LOOKUP, "socket look-ups", b"")
    finally:
        os.close(namespace)


class Ring:
    """Bulk reader of a BPF ring buffer, without a call per record.

    Args:
        ring: a map of type ``RINGBUF``; must outlive the reader's creation only.
        size: its capacity in bytes (``max_entries``).

    Raises:
        KernelError: the map cannot be mapped.
    """

    _BUSY, _DISCARD = 1 << 31, 1 << 30

    def __init__(self, ring: BpfMap, size: int) -> None:
        page = mmap.PAGESIZE
        self.fd = ring.fd
        self._size = size
        try:
            self._consumer = mmap.mmap(ring.fd, page, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            # the kernel maps the data twice in a row, so a record that wraps is still one piece
            self._producer = mmap.mmap(ring.fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        except (OSError, ValueError) as error:
            raise KernelError(
                f"mapping the ring buffer {ring.name}: {error}", hint="is it a ring buffer?"
            ) from error
        self._position = ctypes.c_uint64.from_buffer(self._consumer)

    def take(self) -> list[bytes]:
        """Return the finished records in order and give their room back; empty if none."""
        taken: list[bytes] = []
        at = self._position.value
        (end,) = struct.unpack_from("<Q", self._producer, 0)
        base = mmap.PAGESIZE
        while at < end:
            offset = base + (at & (self._size - 1))
            (head,) = struct.unpack_from("<I", self._producer, offset)
            # reserved but not yet submitted: the records behind it have to wait for it
            if head & self._BUSY:
                break
            length = head & ~self._DISCARD
            # 8: struct bpf_ringbuf_hdr, length with two flag bits, then the page offset
            if not head & self._DISCARD:
                taken.append(self._producer[offset + 8 : offset + 8 + length])
            at += (length + 8 + 7) & ~7
        # told once for the lot: the writers get the room back from this position
        self._position.value = at
        return taken

    def close(self) -> None:
        """Unmap; idempotent."""
        if self._producer.closed:
            return
        # an exported buffer forbids closing the map: the view must go first
        del self._position
        self._consumer.close()
        self._producer.close()


@cache
def _text() -> tuple[list[int], list[str]]:
    """Start and name of every function in the kernel itself; the last is the text's end."""
    found: list[tuple[int, str]] = []
    with KALLSYMS.open() as lines:
        for line in lines:
            address, kind, name = line.split(None, 2)
            if kind in "tTwW" and not name.endswith("]\n"):
                # compilers append .constprop.0, .isra.0, .part.0; probes and readers know the plain
                # name
                found.append((int(address, 16), name.rstrip().split(".")[0]))
    found.sort()
    limits = {name: address for address, name in found if name in ("_stext", "_etext")}
    first, end = limits.get("_stext", 0), limits.get("_etext", 1 << 64)
    functions = [entry for entry in found if first <= entry[0] < end and entry[1] != "_stext"]
    return [address for address, _ in functions] + [end], [name for _, name in functions]


@cache
def _loaded() -> tuple[list[int], list[str]]:
    """The same for modules and BPF programs, which share their part of the address space."""
    pattern = rb"^([0-9a-f]+) [tT] (\S+)\t\[(?!__builtin__)"
    entries = re.findall(pattern, KALLSYMS.read_bytes(), re.MULTILINE)
    found = sorted((int(address, 16), name.decode().split(".")[0]) for address, name in entries)
    return [address for address, _ in found], [name for _, name in found]


def reread_loaded() -> None:
    """Take notice of the BPF programs and modules that came and went."""
    _loaded.cache_clear()


def symbol(address: int) -> str:
    """Return the name of the function that ``address`` is in, empty if unknown.

    Compiler suffixes (``.constprop.0``) are kept off. A BPF program is called as the kernel calls
    it, ``bpf_prog_TAG_NAME``, if it was loaded before the last :func:`reread_loaded`.
    """
    addresses, names = _text()
    # without kptr_restrict's leave every address reads as zero: then nothing is named
    if not addresses[0] or addresses[0] <= address < addresses[-1]:
        place = bisect.bisect_right(addresses, address) - 1
        return names[place] if addresses[0] and 0 <= place < len(names) else ""
    addresses, names = _loaded()
    place = bisect.bisect_right(addresses, address) - 1
    # the space between modules has gaps, and the last function's end is not told
    near = place >= 0 and address - addresses[place] < _LONGEST_FUNCTION
    return names[place] if near else ""


@cache
def drop_reasons() -> dict[int, str]:
    """Return the running kernel's packet drop reasons by number, without ``SKB_DROP_REASON_``.

    Raises:
        UnsupportedError: the kernel carries no BTF.
    """
    enums = Btf(_btf_bytes()).enums
    table = enums.get("skb_drop_reason", {})
    return {number: name.removeprefix("SKB_DROP_REASON_") for name, number in table.items()}
