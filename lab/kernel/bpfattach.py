"""Put loaded programs into hooks: tc (clsact), XDP, cgroup, tracing.

Everything about interfaces happens in the network namespace of the calling thread. tc filters are
replaced atomically (priority 1, handle 1, direct action), so no packet passes unwatched while a
program is exchanged. Programs in cgroups are links: the kernel detaches them with their owner.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from lab.errors import KernelError
from lab.kernel import libbpf, rawbpf
from lab.kernel.bpf import Program
from lab.kernel.bpfmap import Owned
from lab.kernel.libbpf import TcHook as _Hook
from lab.kernel.libbpf import TcOpts as _Opts
from lab.kernel.libbpf import check, lib

PRIORITY = 1
HANDLE = 1
_FRONT_HANDLE = 2
_REPLACE = 1
_XDP_QUERY_ANY = 0
# no filter; no clsact at all is EINVAL to the kernel
_NOTHING_THERE = (-errno.ENOENT, -errno.EINVAL)


class Direction(IntEnum):
    """Side of an interface's clsact qdisc (``enum bpf_tc_attach_point``)."""

    INGRESS = 1
    EGRESS = 2


TCX = {Direction.INGRESS: 46, Direction.EGRESS: 47}
"""``BPF_TCX_INGRESS`` and ``BPF_TCX_EGRESS`` of ``enum bpf_attach_type``."""


class XdpMode(IntEnum):
    """Where XDP runs (``XDP_FLAGS_*``): in the stack, or in the driver."""

    GENERIC = 1 << 1
    NATIVE = 1 << 2


class AttachType(IntEnum):
    """``enum bpf_attach_type``, the ones the lab uses."""

    CGROUP_INET_INGRESS = 0
    CGROUP_INET_EGRESS = 1
    CGROUP_INET_SOCK_CREATE = 2
    CGROUP_SOCK_OPS = 3
    SK_SKB_STREAM_PARSER = 4
    SK_SKB_STREAM_VERDICT = 5
    SK_MSG_VERDICT = 7
    CGROUP_INET4_BIND = 8
    CGROUP_INET6_BIND = 9
    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_INET4_POST_BIND = 12
    CGROUP_INET6_POST_BIND = 13
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    CGROUP_UDP4_RECVMSG = 19
    CGROUP_UDP6_RECVMSG = 20
    TRACE_RAW_TP = 23
    TRACE_FENTRY = 24
    TRACE_FEXIT = 25
    CGROUP_INET4_GETPEERNAME = 29
    CGROUP_INET6_GETPEERNAME = 30
    CGROUP_INET4_GETSOCKNAME = 31
    CGROUP_INET6_GETSOCKNAME = 32
    CGROUP_INET_SOCK_RELEASE = 34
    XDP = 37
    PERF_EVENT = 41


class Link(Owned):
    """A ``bpf_link``: the program stays attached exactly as long as this (or a pin) lives."""

    __slots__ = ()

    def replace(self, program: Program) -> None:
        """Exchange the program atomically.

        Raises:
            KernelError: the program is of another type.
        """
        check(lib().bpf_link_update(self.fd, program.fd, None), f"replacing by {program.name}")


def attach_refused(what: str, error: OSError) -> KernelError:
    """Return the error for a bare bpf(2) call about an attachment that the kernel refused."""
    hint = "see `lab doctor` for what this kernel can attach"
    return libbpf.failure(-(error.errno or 0), what, hint=hint, spoken=())


def _quiet_create(hook: _Hook, ifindex: int) -> bool:
    """Add the clsact qdisc; return whether it was missing."""
    code = lib().bpf_tc_hook_create(ctypes.byref(hook))
    if code == -errno.EEXIST:
        # libbpf warns of what is wanted here: clsact was there already
        libbpf.said()
        return False
    check(code, f"adding clsact to interface {ifindex}")
    return True


def attach_tc(program: Program, ifindex: int, direction: Direction) -> None:
    """Attach, or atomically replace, the program of one side of an interface.

    Creates the clsact qdisc if it is missing; the filter goes with the interface.

    Raises:
        KernelError: no such interface in this namespace, or the program is not SCHED_CLS.
    """
    _quiet_create(
        _Hook(ifindex=ifindex, attach_point=Direction.INGRESS | Direction.EGRESS), ifindex
    )
    hook = _Hook(ifindex=ifindex, attach_point=direction)
    options = _Opts(prog_fd=program.fd, flags=_REPLACE, handle=HANDLE, priority=PRIORITY)
    code = lib().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
    libbpf.check(code, f"attaching {program.name} to interface {ifindex} {direction.name.lower()}")


def attach_tc_in_front(program: Program, ifindex: int, direction: Direction) -> Callable[[], None]:
    """Attach in front of the datapath's program; return what takes it away again.

    For kernels without tcx links: the filter outlives its owner. A program goes on to the next
    one by returning -1 (``TC_ACT_UNSPEC``).

    Raises:
        KernelError: no such interface in this namespace, or one is in front already.
    """
    both = _Hook(ifindex=ifindex, attach_point=Direction.INGRESS | Direction.EGRESS)
    created = _quiet_create(both, ifindex)
    hook = _Hook(ifindex=ifindex, attach_point=direction)
    # of one priority the kernel asks the newest first
    options = _Opts(prog_fd=program.fd, handle=_FRONT_HANDLE, priority=PRIORITY)
    code = lib().bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
    libbpf.check(code, f"attaching {program.name} to interface {ifindex} {direction.name.lower()}")

    def take_away() -> None:
        # priority and handle name the filter: the datapath's own stays
        gone = _Opts(handle=_FRONT_HANDLE, priority=PRIORITY)
        lib().bpf_tc_detach(ctypes.byref(hook), ctypes.byref(gone))
        if created:
            lib().bpf_tc_hook_destroy(ctypes.byref(both))
        libbpf.said()

    return take_away


def query_tc(ifindex: int, direction: Direction) -> int | None:
    """Return the id of the program attached to one side of an interface, or None.

    Raises:
        KernelError: no such interface in this namespace.
    """
    hook = _Hook(ifindex=ifindex, attach_point=direction)
    options = _Opts(handle=HANDLE, priority=PRIORITY)
    code = lib().bpf_tc_query(ctypes.byref(hook), ctypes.byref(options))
    if code in _NOTHING_THERE:
        libbpf.said()
        return None
    check(code, f"asking for the program of interface {ifindex}")
    return int(options.prog_id)


def has_tcx(ifindex: int, direction: Direction) -> bool:
    """Return whether programs are attached to one side of an interface by tcx, beside clsact.

    Kernels before 6.6 have no tcx: there the answer is no.
    """
    count = ctypes.c_uint32(0)
    asked = lib().bpf_prog_query(ifindex, TCX[direction], 0, None, None, ctypes.byref(count))
    if asked:
        libbpf.said()
    return not asked and count.value > 0


def detach_tc(ifindex: int, direction: Direction) -> bool:
    """Remove the program from one side of an interface; return whether there was one.

    Raises:
        KernelError: no such interface in this namespace.
    """
    hook = _Hook(ifindex=ifindex, attach_point=direction)
    options = _Opts(handle=HANDLE, priority=PRIORITY)
    code = lib().bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options))
    if code in _NOTHING_THERE:
        libbpf.said()
        return False
    check(code, f"detaching from interface {ifindex}")
    return True


def attach_xdp(program: Program, ifindex: int, mode: XdpMode = XdpMode.GENERIC) -> None:
    """Attach, or atomically replace, the XDP program of an interface.

    Raises:
        KernelError: no such interface, the driver has no native XDP, or the other mode is taken.
    """
    code = lib().bpf_xdp_attach(ifindex, program.fd, mode, None)
    check(code, f"attaching {program.name} to interface {ifindex} as {mode.name.lower()} XDP")


def attach_xdp_link(program: Program, ifindex: int) -> Link:
    """Attach an XDP program for as long as the link lives: in the driver where it can.

    Raises:
        KernelError: no such interface in this namespace, or it has an XDP program already.
    """
    code = lib().bpf_link_create(program.fd, ifindex, AttachType.XDP, None)
    return Link(check(code, f"attaching {program.name} to interface {ifindex} as XDP"))


def detach_xdp(ifindex: int, mode: XdpMode = XdpMode.GENERIC) -> None:
    """Remove the XDP program of an interface; without one nothing happens.

    Raises:
        KernelError: no such interface.
    """
    # -1 in place of a descriptor takes the program away
    check(lib().bpf_xdp_attach(ifindex, -1, mode, None), f"detaching XDP of interface {ifindex}")


def query_xdp(ifindex: int) -> int | None:
    """Return the id of the interface's XDP program in whatever mode, or None.

    Raises:
        KernelError: no such interface.
    """
    number = ctypes.c_uint32()
    code = lib().bpf_xdp_query_id(ifindex, _XDP_QUERY_ANY, number)
    check(code, f"asking for the XDP program of interface {ifindex}")
    return int(number.value) or None


def attach_cgroup(program: Program, cgroup: Path | str, kind: AttachType) -> Link:
    """Attach to a cgroup and everything below it; return the link that holds it there.

    Raises:
        KernelError: not a cgroup v2 folder, or the program's expected attach type differs.
    """
    with Owned(_open_folder(cgroup)) as folder:
        code = lib().bpf_link_create(program.fd, folder.fd, kind, None)
        return Link(check(code, f"attaching {program.name} to cgroup {cgroup}"))


def attach_tracing(program: Program, kind: AttachType = AttachType.TRACE_RAW_TP) -> Link:
    """Attach a ``tp_btf``, ``fentry`` or ``fexit`` program where its section says.

    Raises:
        KernelError: the kernel forbids it (lockdown) or lacks it.
    """
    code = lib().bpf_link_create(program.fd, 0, kind, None)
    return Link(check(code, f"attaching {program.name} to the kernel"))


def attach_kprobe(program: Program, function: str) -> Link:
    """Attach a ``kprobe`` program to the entry of a kernel function, for as long as the link lives.

    Args:
        program: loaded as ``ProgramType.KPROBE``.
        function: name as in /proc/kallsyms, with whatever the compiler appended.

    Raises:
        KernelError: the kernel has no kprobes, or not on this function.
    """
    what = f"attaching {program.name} to {function}"
    try:
        event = rawbpf.kprobe_event(function)
    except OSError as error:
        raise libbpf.failure(-(error.errno or 0), what) from error
    # the link holds the event
    with Owned(event) as held:
        code = lib().bpf_link_create(program.fd, held.fd, AttachType.PERF_EVENT, None)
        return Link(check(code, what))


def _open_folder(path: Path | str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise libbpf.failure(-(error.errno or 0), f"opening cgroup {path}") from error
