"""Load compiled BPF objects through libbpf, and run single programs on single packets.

`load_object` opens, configures, verifies and closes an object in one call and hands over owners
of what it made: programs and maps, one descriptor each. Needs CAP_BPF and CAP_NET_ADMIN (root).
"""

from __future__ import annotations

import ctypes
import difflib
import errno
import fcntl
import mmap
import platform
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Self

from lab.errors import InputError, VerifierError
from lab.kernel import libbpf
from lab.kernel.bpfmap import BpfMap, MapSpec, Owned, get_pinned
from lab.kernel.btf import Elf, Symbol, read_object
from lab.kernel.libbpf import check, check_pointer, lib

ConfigValue = int | bytes | IPv4Address | IPv6Address
_LOG_BYTES = 16 << 20  # reserved address space; pages are touched only when a program is refused
_LOG_TAIL = 15
_ATTACH_NETFILTER = 45
# numbers of the system call: x86_64 has its own, newer machines share one table
_MEMBARRIER = {"x86_64": 324, "generic": 283}
_MEMBARRIER_GLOBAL = 1
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
_FRAMES_AT_ONCE = 64
_PACKET_ROOM = 256 + 512  # how much a program may add in front of and behind a packet


class ProgramType(IntEnum):
    """``enum bpf_prog_type``, the ones a datapath and its probes use."""

    UNSPEC = 0
    SOCKET_FILTER = 1
    KPROBE = 2
    SCHED_CLS = 3
    TRACEPOINT = 5
    XDP = 6
    CGROUP_SKB = 8
    CGROUP_SOCK = 9
    SOCK_OPS = 13
    SK_SKB = 14
    SK_MSG = 16
    RAW_TRACEPOINT = 17
    CGROUP_SOCK_ADDR = 18
    TRACING = 26
    NETFILTER = 32


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel tells about a loaded program; sizes in bytes, times in nanoseconds."""

    id: int
    name: str
    type: int
    tag: str
    xlated_bytes: int
    jited_bytes: int
    verified_insns: int
    run_time_ns: int
    run_count: int


@dataclass(frozen=True, slots=True)
class RawRun:
    """Outcome of one test run: return code, packet and context afterwards, ns per repetition."""

    return_code: int
    packet: bytes
    context: bytes
    duration_ns: int


class Program(Owned):
    """One loaded program.

    Attributes:
        name: the C function's name, untruncated when loaded here.
        section: the ELF section it came from; empty for programs opened from a pin or id.
    """

    __slots__ = ("name", "section")

    def __init__(self, fd: int, *, name: str = "", section: str = "") -> None:
        super().__init__(fd)
        self.name = name
        self.section = section

    @classmethod
    def from_pin(cls, path: Path | str) -> Self:
        """Open the program pinned at ``path``.

        Raises:
            KernelError: nothing is pinned there.
        """
        fd = get_pinned(path)
        if fd is None:
            raise libbpf.failure(-errno.ENOENT, f"opening the program {path}")
        return cls(fd, name=Path(path).name)

    @classmethod
    def from_id(cls, number: int) -> Self:
        """Open the program with the kernel's id ``number``.

        Raises:
            KernelError: there is none.
        """
        fd = check(lib().bpf_prog_get_fd_by_id(number), f"opening program id {number}")
        return cls(fd)

    def info(self) -> ProgramInfo:
        """Return what the kernel knows about the program now.

        Raises:
            KernelError: the descriptor is closed.
        """
        raw = libbpf.ProgInfo()
        size = ctypes.c_uint32(ctypes.sizeof(raw))
        code = lib().bpf_obj_get_info_by_fd(self.fd, ctypes.byref(raw), size)
        check(code, f"asking about program {self.name}")
        return ProgramInfo(
            id=raw.id,
            name=self.name or raw.name.decode(),
            type=raw.type,
            tag=bytes(raw.tag).hex(),
            xlated_bytes=raw.xlated_prog_len,
            jited_bytes=raw.jited_prog_len,
            verified_insns=raw.verified_insns,
            run_time_ns=raw.run_time_ns,
            run_count=raw.run_cnt,
        )

    def test_run(self, packet: bytes, context: bytes = b"", *, repeat: int = 1) -> RawRun:
        """Run the program on a copy of ``packet``; nothing is sent.

        Args:
            packet: at least 14 bytes, Ethernet header first.
            context: a ``struct __sk_buff`` (or ``xdp_md``) to start from; empty for none.
            repeat: how often; the packet is *not* reset in between.

        Raises:
            KernelError: the kernel refuses the packet, the context or this type of program.
        """
        room = ctypes.create_string_buffer(len(packet) + _PACKET_ROOM)
        context_in = ctypes.create_string_buffer(context, len(context)) if context else None
        context_out = ctypes.create_string_buffer(len(context)) if context else None
        # a bare buffer gets a zero byte more; a size given here keeps the packet's own length
        data = ctypes.create_string_buffer(packet, len(packet))
        options = libbpf.TestRunOpts(
            data_in=ctypes.addressof(data),
            data_out=ctypes.addressof(room),
            data_size_in=len(packet),
            data_size_out=len(room),
            ctx_in=ctypes.addressof(context_in) if context_in else None,
            ctx_out=ctypes.addressof(context_out) if context_out else None,
            ctx_size_in=len(context),
            ctx_size_out=len(context),
            repeat=repeat,
        )
        code = lib().bpf_prog_test_run_opts(self.fd, ctypes.byref(options))
        check(code, f"running {self.name} on a {len(packet)}-byte packet")
        return RawRun(
            options.retval,
            room.raw[: options.data_size_out],
            context_out.raw[: options.ctx_size_out] if context_out else b"",
            options.duration,
        )

    def inject(self, frame: bytes, ifindex: int, count: int) -> None:
        """Give an XDP program frames to decide about as if an interface had received them.

        What it passes goes up the network stack of this namespace: about a microsecond a frame.

        Args:
            frame: Ethernet header first.
            ifindex: of an interface of the calling thread's network namespace.
            count: how many copies.

        Raises:
            KernelError: no such interface, or the kernel (before 5.18) cannot.
        """
        data = ctypes.create_string_buffer(frame, len(frame))
        # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        context = ctypes.create_string_buffer(struct.pack("<6I", 0, len(frame), 0, ifindex, 0, 0))
        options = libbpf.TestRunOpts(
            data_in=ctypes.addressof(data),
            data_size_in=len(frame),
            ctx_in=ctypes.addressof(context),
            ctx_size_in=24,
            repeat=count,
            flags=_LIVE_FRAMES,
            batch_size=_FRAMES_AT_ONCE,
        )
        code = lib().bpf_prog_test_run_opts(self.fd, ctypes.byref(options))
        check(code, f"injecting {len(frame)}-byte frames at interface {ifindex}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Owner of the programs and maps of one loaded object, by their C names."""

    programs: Mapping[str, Program]
    maps: Mapping[str, BpfMap]
    _owned: ExitStack = field(repr=False)

    def keep(self, programs: Collection[str], maps: Collection[str]) -> None:
        """Close the descriptors of all other programs and maps; what uses them keeps them."""
        for program in self.programs.values():
            if program.name not in programs:
                program.close()
        for bpf_map in self.maps.values():
            if bpf_map.name not in maps:
                bpf_map.close()

    def close(self) -> None:
        """Close every descriptor; what is pinned or attached stays."""
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def encode_config(symbol: Symbol, value: ConfigValue) -> bytes:
    """Return the bytes of one load-time constant, little endian for integers.

    Raises:
        InputError: the value does not fit the constant.
    """
    if isinstance(value, IPv4Address | IPv6Address):
        value = value.packed
    if isinstance(value, int):
        try:
            return int(value).to_bytes(symbol.size, "little", signed=value < 0)
        except OverflowError as error:
            raise InputError(
                f"{value} does not fit the {symbol.size} bytes of {symbol.name}",
                hint="see bpf/lib/config.h",
            ) from error
    if len(value) != symbol.size:
        raise InputError(
            f"{symbol.name} has {symbol.size} bytes, got {len(value)}", hint="see bpf/lib/config.h"
        )
    return value


def config_patches(elf: Elf, config: Mapping[str, ConfigValue]) -> Iterator[tuple[Symbol, bytes]]:
    """Yield place and bytes of each constant of ``config``.

    Raises:
        InputError: the object has no such constant, or a value does not fit.
    """
    known = {s.name: s for s in elf.variables if s.section.startswith(".rodata")}
    for name, value in config.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
            raise InputError(f"the object has no load-time constant {name}", hint=hint)
        yield known[name], encode_config(known[name], value)


def load_object(
    path: Path | str,
    *,
    default_type: ProgramType,
    config: Mapping[str, ConfigValue] | None = None,
    reuse: Mapping[str, BpfMap] | None = None,
    max_entries: Mapping[str, int] | None = None,
    only: Collection[str] | None = None,
) -> Loaded:
    """Verify and load the programs of an object file, creating the maps it needs.

    Args:
        path: compiled with ``clang -target bpf -g``.
        default_type: for programs in sections whose name libbpf does not know.
        config: ``const volatile`` variables by name; the verifier treats them as constants.
        reuse: maps by C name that exist already, to be used instead of new ones.
        max_entries: capacities by C map name, instead of the declared ones.
        only: names of the programs to load (empty: just create the maps); all if None.

    Raises:
        VerifierError: the verifier refused a program; names it, its C line and the log's end.
        InputError: an unknown constant or a value that does not fit.
        BuildError: the file is no BPF object.
        KernelError: anything else the kernel refused.
    """
    elf = read_object(path)
    # what an earlier call of this thread left would be blamed on this object
    libbpf.said()
    options = libbpf.OpenOpts(object_name=Path(path).stem.encode())
    opened = lib().bpf_object__open_mem(elf.data, len(elf.data), ctypes.byref(options))
    handle = check_pointer(opened, f"opening {path}")
    try:
        with mmap.mmap(-1, _LOG_BYTES) as log:
            _configure_maps(handle, elf, config or {}, reuse or {}, max_entries or {})
            _configure_programs(handle, log, default_type, only)
            code = lib().bpf_object__load(handle)
            if code < 0:
                _refuse(code, str(path), elf, _log_text(log))
        return _take_over(handle)
    finally:
        lib().bpf_object__close(handle)


def _handles(step: str, handle: int) -> Iterator[int]:
    """Walk the programs or maps of an open object."""
    following = getattr(lib(), step)
    current = following(handle, None)
    while current:
        yield current
        current = following(handle, current)


def _configure_maps(
    handle: int,
    elf: Elf,
    config: Mapping[str, ConfigValue],
    reuse: Mapping[str, BpfMap],
    max_entries: Mapping[str, int],
) -> None:
    patches = list(config_patches(elf, config))
    for bpf_map in _handles("bpf_object__next_map", handle):
        name = lib().bpf_map__name(bpf_map).decode()
        if lib().bpf_map__is_internal(bpf_map):
            # .rodata, .data and .bss: their content can be changed until the load freezes .rodata
            content = lib().bpf_map__initial_value(bpf_map, ctypes.c_size_t())
            for symbol, value in patches:
                if name.endswith(symbol.section):
                    ctypes.memmove(content + symbol.offset, value, len(value))
            continue
        if name in max_entries:
            code = lib().bpf_map__set_max_entries(bpf_map, max_entries[name])
            check(code, f"setting the capacity of {name}")
        if name in reuse:
            check(lib().bpf_map__reuse_fd(bpf_map, reuse[name].fd), f"reusing map {name}")


def _configure_programs(
    handle: int, log: mmap.mmap, default_type: ProgramType, only: Collection[str] | None
) -> None:
    # one buffer for all: programs are loaded one after the other and the first refusal ends it
    buffer = ctypes.addressof(ctypes.c_char.from_buffer(log))
    for program in _handles("bpf_object__next_program", handle):
        name = lib().bpf_program__name(program).decode()
        if only is not None and name not in only:
            # a program that is left out is not even verified, and has no descriptor afterwards
            check(lib().bpf_program__set_autoload(program, False), f"leaving {name} out")
            continue
        if lib().bpf_program__type(program) == ProgramType.UNSPEC:
            code = lib().bpf_program__set_type(program, default_type)
            check(code, f"setting the type of {name}")
            if default_type is ProgramType.NETFILTER:  # the kernel insists, libbpf 1.1 cannot know
                code = lib().bpf_program__set_expected_attach_type(program, _ATTACH_NETFILTER)
                check(code, f"setting the attach type of {name}")
        code = lib().bpf_program__set_log_buf(program, buffer, _LOG_BYTES)
        check(code, f"preparing the log of {name}")


def _duplicate(fd: int) -> int:
    # closing libbpf's object closes its descriptors: owners need their own
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)


def _take_over(handle: int) -> Loaded:
    """Own descriptors of everything that was loaded, so that libbpf's object can be closed."""
    programs: dict[str, Program] = {}
    maps: dict[str, BpfMap] = {}
    with ExitStack() as stack:
        for program in _handles("bpf_object__next_program", handle):
            if (fd := lib().bpf_program__fd(program)) >= 0:
                name = lib().bpf_program__name(program).decode()
                section = lib().bpf_program__section_name(program).decode()
                owner = Program(_duplicate(fd), name=name, section=section)
                programs[name] = stack.enter_context(owner)
        for bpf_map in _handles("bpf_object__next_map", handle):
            if (fd := lib().bpf_map__fd(bpf_map)) >= 0:
                name = lib().bpf_map__name(bpf_map).decode()
                maps[name] = stack.enter_context(BpfMap(_duplicate(fd), name=name))
        return Loaded(programs, maps, stack.pop_all())


def declared_maps(path: Path | str) -> dict[str, MapSpec]:
    """Return type and sizes of each map an object declares, by C name; needs libbpf, not root.

    Raises:
        BuildError: the file is no BPF object.
        KernelError: libbpf does not understand it.
    """
    elf = read_object(path)
    options = libbpf.OpenOpts(object_name=Path(path).stem.encode())
    opened = lib().bpf_object__open_mem(elf.data, len(elf.data), ctypes.byref(options))
    handle = check_pointer(opened, f"opening {path}")
    try:
        return {
            lib().bpf_map__name(bpf_map).decode(): MapSpec(
                lib().bpf_map__type(bpf_map),
                lib().bpf_map__key_size(bpf_map),
                lib().bpf_map__value_size(bpf_map),
                lib().bpf_map__max_entries(bpf_map),
                lib().bpf_map__map_flags(bpf_map),
            )
            for bpf_map in _handles("bpf_object__next_map", handle)
            if not lib().bpf_map__is_internal(bpf_map)
        }
    finally:
        lib().bpf_object__close(handle)


def _log_text(log: mmap.mmap) -> str:
    end = log.find(b"\0")
    return log[: max(end, 0)].decode(errors="replace")


_INSTRUCTION = re.compile(r"(\d+): \([0-9a-f]{2}\) ")
_REFUSED = re.compile(r"prog '(?P<name>[^']+)': BPF program load failed")


def _where(elf: Elf, program: str, lines: list[str]) -> str:
    """The C line of the last instruction in a log: from line information, else as annotated."""
    numbers = [int(match[1]) for line in lines if (match := _INSTRUCTION.match(line))]
    known = elf.source_line(program, numbers[-1]) if numbers else None
    if known is not None:
        return f" at {known.file}:{known.number} `{known.text}`"
    annotated = next((line[2:] for line in reversed(lines) if line.startswith("; ")), "")
    return f" at `{annotated.strip()}`" if annotated else ""


def _refuse(code: int, path: str, elf: Elf, log: str) -> None:
    """Raise the error that tells a reader most about a failed load."""
    spoken = libbpf.said()
    refused = next((m for line in spoken if (m := _REFUSED.search(line))), None)
    if refused is None or not log.strip():
        raise libbpf.failure(code, f"loading {path}", spoken=spoken)
    lines = log.rstrip().splitlines()
    at = _where(elf, refused["name"], lines)
    tail = "\n  ".join(lines[-_LOG_TAIL:])
    raise VerifierError(
        f"the verifier refused {refused['name']} of {path}{at}\n  {tail}",
        hint="read the last lines upwards from the refusal; the line in backquotes is the C source",
    )


def wait_for_readers() -> None:
    """Return when every CPU has left the BPF programs it was in at the call (about 10 ms).

    ``membarrier(MEMBARRIER_CMD_GLOBAL)`` waits for an RCU grace period; see membarrier(2).

    Raises:
        KernelError: the kernel has no membarrier.
    """
    number = _MEMBARRIER.get(platform.machine(), _MEMBARRIER["generic"])
    code = ctypes.CDLL(None, use_errno=True).syscall(number, _MEMBARRIER_GLOBAL, 0, 0)
    if code < 0:
        raise libbpf.failure(-ctypes.get_errno(), "waiting for running programs")
