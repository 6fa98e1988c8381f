"""A probe of the user's own as data: C text for bcc, and the hooks its functions go into."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lab.errors import InputError
from lab.names import did_you_mean
from lab.trace.steps import Evidence


class At(Enum):
    """A kind of hook that a function of one's own can be put into.

    Attributes:
        word: as it is written in `Attach`.
        evidence: what a line from there counts as.
        needs: the ability of the kernel that it takes (`lab doctor`), empty for every kernel.
        on_device: its target is ``PLACE/DEVICE``; else the name of a tracepoint or function.
    """

    TC_INGRESS = ("tc-ingress", Evidence.PROGRAM, "", True)
    TC_EGRESS = ("tc-egress", Evidence.PROGRAM, "", True)
    XDP = ("xdp", Evidence.PROGRAM, "", True)
    TRACEPOINT = ("tracepoint", Evidence.TRACEPOINT, "", False)
    KPROBE = ("kprobe", Evidence.PROBE, "kprobe", False)
    KRETPROBE = ("kretprobe", Evidence.PROBE, "kprobe", False)
    FENTRY = ("fentry", Evidence.PROBE, "fentry", False)

    def __init__(self, word: str, evidence: Evidence, needs: str, on_device: bool) -> None:
        self.word = word
        self.evidence = evidence
        self.needs = needs
        self.on_device = on_device


_WORDS = {at.word: at for at in At}


@dataclass(frozen=True, slots=True)
class Attach:
    """One function of the C text in one hook.

    Attributes:
        kind: ``tc-ingress``, ``tc-egress``, ``xdp``, ``tracepoint``, ``kprobe``, ``kretprobe`` or
            ``fentry``.
        target: ``PLACE/DEVICE`` (``server/eth0``), or the tracepoint's or kernel function's name.
        function: name of the C function; for ``fentry`` what ``KFUNC_PROBE`` makes of the target.

    Raises:
        InputError: no such kind of hook, or no device in the target.
    """

    kind: str
    target: str
    function: str = ""

    def __post_init__(self) -> None:
        if self.kind not in _WORDS:
            raise InputError(
                f"{self.kind!r} is no hook that a probe can go into",
                hint=did_you_mean(self.kind, _WORDS),
            )
        if self.at.on_device and not all(self.device):
            raise InputError(
                f"{self.kind} {self.target!r}: not a place and its device",
                hint="write PLACE/DEVICE, for example server/eth0",
            )
        # KFUNC_PROBE makes both the function and its name from the target
        if not self.function and self.at is not At.FENTRY:
            raise InputError(
                f"{self.kind} {self.target}: which function of the C text?",
                hint=f'Attach("{self.kind}", "{self.target}", "function_name")',
            )

    @property
    def at(self) -> At:
        """The kind as a value."""
        return _WORDS[self.kind]

    @property
    def device(self) -> tuple[str, str]:
        """Place and device of a target on a device."""
        place, _, device = self.target.rpartition("/")
        return place, device

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


@dataclass(frozen=True, slots=True)
class Probe:
    """A bcc program: what it prints about a packet stands in the packet's own trace.

    Each perf or ring buffer of the text (``BPF_PERF_OUTPUT(seen)``) makes lines called ``seen``.
    Its structure must begin with ``u64 ns``, the time (``bpf_ktime_get_ns()``). A field ``skb`` is
    the address of the packet's buffer, a field ``ifindex`` the device: they find the packet. What
    names no buffer belongs to the packet that is in the hook on that processor. All other fields
    are shown under their own names.

    Attributes:
        text: C for bcc.
        attach: which function goes where.
        name: for messages; the file's name, if it came from one.
        first_line: of that file where the text begins.
    """

    text: str
    attach: tuple[Attach, ...]
    name: str = "probe"
    first_line: int = 1

    def __post_init__(self) -> None:
        if not self.attach:
            raise InputError(
                f"{self.name}: a probe without a hook sees nothing",
                hint='attach=(Attach("tracepoint", "consume_skb", "function_name"),)',
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEvent:
    """One event of a user's own probe.

    Attributes:
        hook: name of the buffer it came through.
        at: where the function sits that wrote it; the first of its kind if several write there.
        function: its name.
        target: tracepoint or kernel function it sits on, empty on a device.
        ns: kernel time.
        cpu: processor.
        skb: address of the packet's buffer, 0 if not told.
        ifindex: the device's number, 0 if not told.
        places: (namespace inode, interface index) of the devices it may come from; empty: any.
        values: the user's own fields by name, in order.
        object: ``prog ID``.
    """

    hook: str
    at: At
    function: str = ""
    target: str = ""
    ns: int
    cpu: int
    skb: int = 0
    ifindex: int = 0
    places: tuple[tuple[int, int], ...] = ()
    values: tuple[tuple[str, int | str], ...] = ()
    object: str = ""
