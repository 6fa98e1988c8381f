"""A user's own program, compiled and attached by bcc: what it writes, with names for its fields.

Everything is held by descriptors of this process: its end, however it comes, takes the programs
out of the kernel; tc filters on kernels without tcx links (before 6.6) are guarded by a second one.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from lab.errors import BuildError, InputError, KernelError, PrerequisiteError, VerifierError
from lab.kernel import tracing
from lab.kernel.bpf import Program
from lab.kernel.bpfattach import Direction, attach_tc_in_front, attach_xdp_link
from lab.kernel.guard import guarded
from lab.kernel.headers import SOURCE_VARIABLE, Headers
from lab.kernel.netns import NetworkNamespace
from lab.names import did_you_mean
from lab.trace.own import At, Attach, Probe

_OUTPUT = re.compile(r"\bBPF_PERF_OUTPUT\s*\(\s*(\w+)\s*\)")
_RING = re.compile(r"\bBPF_RINGBUF_OUTPUT\s*\(")
_COMPLAINT = re.compile(r"^/virtual/main\.c:(\d+):(\d+): (?:fatal )?error: (.*)$", re.M)
_DEFINITION = re.compile(r"^(?:[A-Za-z_][^;{}#]*?\b)?(\w+)\s*\([^;{}]*\)\s*\{", re.M)
_SIDES = {At.TC_INGRESS: Direction.INGRESS, At.TC_EGRESS: Direction.EGRESS}
Device = tuple[NetworkNamespace, int]
"""A network namespace and the number of an interface in it."""
_PAGES = 64
_LOG_TAIL = 15


@dataclass(frozen=True, slots=True)
class Output:
    """One event as it came out of a perf buffer.

    Attributes:
        buffer: its name in the text.
        cpu: processor.
        values: the structure's fields, in order.
    """

    buffer: str
    cpu: int
    values: tuple[tuple[str, int | str], ...]


class OwnProgram:
    """A compiled probe; attach its functions one by one, then `poll`.

    Args:
        probe: what to compile.
        headers: what against.
        tcx: attach to tc with links where the kernel has them; False does without, as older
            kernels must.

    Attributes:
        lost: events that found a buffer full.

    Raises:
        PrerequisiteError: bcc is not installed.
        BuildError: the text does not compile; file and line are in the message.
        InputError: no perf buffer, or a structure without a time.
    """

    def __init__(self, probe: Probe, headers: Headers, *, tcx: bool = True) -> None:
        self.probe = probe
        self._tcx = tcx and tracing.kernel_knows("tcx_link_attach")
        self.lost = 0
        self._taken: list[Output] = []
        self._stack = ExitStack()
        self.buffers = tuple(dict.fromkeys(_OUTPUT.findall(probe.text)))
        if _RING.search(probe.text) or not self.buffers:
            raise InputError(
                f"{probe.name}: it has no BPF_PERF_OUTPUT: nothing it sees would come out",
                hint="BPF_PERF_OUTPUT(seen); and seen.perf_submit(ctx, &event, sizeof(event))",
            )
        self._bpf = self._compile(headers)
        for buffer in self.buffers:
            self._open(buffer)

    def _compile(self, headers: Headers) -> Any:
        # bcc reads its variable when it compiles; this process has no other use for it.
        if headers.source is not None:
            os.environ[SOURCE_VARIABLE] = str(headers.source)
        try:
            from bcc import BPF
        except ImportError as error:
            raise PrerequisiteError(
                f"bcc is not installed: {error}", hint="sudo apt-get install python3-bpfcc"
            ) from error
        said: list[str] = []
        try:
            with _stderr(said):
                return BPF(text=self.probe.text, cflags=[*headers.flags, "-Wno-macro-redefined"])
        except Exception as error:  # noqa: BLE001 - bcc raises nothing more special
            raise self._refused(str(error), said[0]) from None

    def _refused(self, error: str, said: str) -> BuildError:
        first = self.probe.first_line - 1
        found = [
            f"{self.probe.name}:{int(line) + first}:{column}: {words}"
            for line, column, words in _COMPLAINT.findall(said)
        ]
        text = "\n".join(found) or "\n".join([*said.strip().splitlines()[-_LOG_TAIL:], error])
        return BuildError(
            text, hint="the text is C for bcc: its reference is in bcc's docs/reference_guide.md"
        )

    def _open(self, buffer: str) -> None:
        table = self._bpf[buffer]

        def keep(cpu: int, data: Any, size: int) -> None:
            event = table.event(data)
            values = tuple((name, _plain(getattr(event, name))) for name, *_ in event._fields_)
            self._taken.append(Output(buffer, cpu, values))

        def lost(count: int) -> None:
            self.lost += count

        table.open_perf_buffer(keep, page_cnt=_PAGES, lost_cb=lost)

    # -- attaching ------------------------------------------------------------------------------

    def attach(self, one: Attach, where: Device | None = None) -> int:
        """Put one function into its hook; return the kernel's id of the program.

        Args:
            one: which function, which hook.
            where: the device, for hooks of devices.

        Raises:
            InputError: no such function, tracepoint or kernel function.
            VerifierError: the kernel refuses the program.
            KernelError: the hook is taken, or cannot be attached to.
        """
        from bcc import BPF

        if one.at is At.FENTRY:
            return 0  # KFUNC_PROBE attached itself when the text was compiled
        kinds = {At.XDP: BPF.XDP, At.TRACEPOINT: BPF.RAW_TRACEPOINT}
        kinds |= dict.fromkeys(_SIDES, BPF.SCHED_CLS)
        fd = self._load(one, kinds.get(one.at, BPF.KPROBE))
        # bcc closes its own descriptor in cleanup; the duplicate lives as long as the hook
        program = self._stack.enter_context(Program(os.dup(fd), name=one.function))
        if one.at is At.TRACEPOINT:
            known = _tracepoints()
            if one.target not in known:
                raise InputError(
                    f"the kernel has no tracepoint {one.target!r}",
                    hint=did_you_mean(one.target, known),
                )
            self._quietly(one, self._bpf.attach_raw_tracepoint, tp=one.target)
        elif where is not None:
            self._attach_device(one, program, where)
        else:
            known = _functions(one.target[:2])
            if one.target not in known:
                raise InputError(
                    f"the kernel has no function {one.target!r} (or it was inlined)",
                    hint=did_you_mean(one.target, known),
                )
            attach = self._bpf.attach_kprobe
            attach = attach if one.at is At.KPROBE else self._bpf.attach_kretprobe
            self._quietly(one, attach, event=one.target)
        return program.info().id

    def _load(self, one: Attach, kind: int) -> int:
        functions = _DEFINITION.findall(self.probe.text)
        if one.function not in functions:
            raise InputError(
                f"{self.probe.name}: the text has no function {one.function!r}",
                hint=did_you_mean(one.function, functions),
            )
        said: list[str] = []
        try:
            with _stderr(said):
                return int(self._bpf.load_func(one.function, kind).fd)
        except Exception as error:  # noqa: BLE001 - bcc raises nothing more special
            log = "\n".join(said[0].strip().splitlines()[-_LOG_TAIL:])
            raise VerifierError(
                f"{self.probe.name}: the kernel refuses {one.function} for {one}: {error}\n{log}",
                hint="the last lines of the verifier's log say which access it forbids",
            ) from None

    def _quietly(self, one: Attach, attach: Callable[..., object], **arguments: str) -> None:
        said: list[str] = []
        try:
            with _stderr(said):
                attach(fn_name=one.function, **arguments)
        except Exception as error:  # noqa: BLE001 - bcc raises nothing more special
            raise KernelError(
                f"attaching {one.function} to {one}: {error} {said[0].strip()}".rstrip(),
                hint="see `lab doctor` for what this kernel can attach",
            ) from None

    def _attach_device(self, one: Attach, program: Program, where: Device) -> None:
        space, ifindex = where
        with space.entered():
            if one.at is At.XDP:
                self._stack.enter_context(attach_xdp_link(program, ifindex))
            # a tcx link goes with its descriptor, so a crash of this process leaves nothing behind
            elif self._tcx:
                self._stack.enter_context(tracing.attach_tcx(program, ifindex, _SIDES[one.at]))
            else:
                take_away = attach_tc_in_front(program, ifindex, _SIDES[one.at])
                self._stack.enter_context(guarded(partial(_inside, space, take_away), space.fd))

    # -- what came ------------------------------------------------------------------------------

    def poll(self) -> list[Output]:
        """Return what was written since the last call, without waiting."""
        self._bpf.perf_buffer_poll(timeout=0)
        taken, self._taken = self._taken, []
        return taken

    def close(self) -> None:
        """Take every function out of its hook; idempotent."""
        self._stack.close()
        self._bpf.cleanup()


def writers(probe: Probe, buffer: str) -> tuple[Attach, ...]:
    """Return the attached functions that write into a buffer, directly or through another one."""
    bodies = _bodies(probe.text)
    writing = {name for name, body in bodies.items() if f"{buffer}.perf_submit" in body}
    # as often as there are functions: that is the longest chain of calls there can be
    for _ in bodies:
        calls = re.compile(rf"\b({'|'.join(map(re.escape, writing)) or '-'})\s*\(")
        writing |= {name for name, body in bodies.items() if calls.search(body)}
    return tuple(
        one
        for one in probe.attach
        if one.function in writing or (one.at is At.FENTRY and "KFUNC_PROBE" in writing)
    )


def _bodies(text: str) -> dict[str, str]:
    found = list(_DEFINITION.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)][: len(found)]
    return {m.group(1): text[m.end() : end] for m, end in zip(found, ends, strict=True)}


def _inside(space: NetworkNamespace, action: Callable[[], None]) -> None:
    with space.entered():
        action()


@cache
def _tracepoints() -> frozenset[str]:
    return frozenset(tracing.names_with_prefix("btf_trace_"))


def _functions(prefix: str) -> frozenset[str]:
    return frozenset(name for name in tracing.functions() if name.startswith(prefix))


def _plain(value: Any) -> int | str:
    if isinstance(value, int):
        return value
    data = bytes(value)
    if isinstance(value, bytes):
        return int.from_bytes(data) if len(data) == 1 else data.split(b"\0")[0].decode(
            errors="replace"
        )  # fmt: skip
    return data.hex()


@contextmanager
def _stderr(said: list[str]) -> Iterator[None]:
    """Keep what C libraries write to standard error: it becomes part of an error's message."""
    # bcc and clang write to descriptor 2 past Python's own object
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
