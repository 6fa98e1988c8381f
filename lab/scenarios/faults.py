"""Lessons about faults: one switch, one packet, and an answer key that says where it must end.

A lesson sends a packet with the switch turned and one without. The first must end exactly where
the key says, `lab why` must name the cause, and the second must arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from lab.datapath.build import SOURCES, build
from lab.observe.examine import Examiner
from lab.observe.recording import Shot, follow
from lab.observe.why import Diagnosis, diagnose
from lab.packets import cookie_of
from lab.scenarios.run import Stage
from lab.trace import Hop, Step, Trace
from lab.waiting import eventually

# what is sent gets lost on purpose: nobody should wait long for an answer
UDP, TCP, ICMP = (Shot(protocol=name, timeout_s=0.2) for name in ("udp", "tcp", "icmp"))
_RESTORED_S = 10.0


@dataclass(frozen=True, slots=True)
class Switch:
    """What turns a working way into a broken one: commands in one place, and commands back.

    Attributes:
        place: pod, node, ``world`` or ``underlay``.
        on, off: command lines; ``{verdicts}`` is the compiled ``bpf/lessons/verdicts.c``.
    """

    place: str
    on: tuple[str, ...]
    off: tuple[str, ...]

    @contextmanager
    def turned(self, lab: Stage) -> Iterator[None]:
        """Turn it on while the block runs.

        Raises:
            CheckFailed: a command failed.
        """
        place = lab.place(self.place)
        try:
            for line in self.on:
                place.run(_words(line), check=True)
            yield
        finally:
            # also where turning it on failed half way
            for line in self.off:
                place.run(_words(line), check=True)


@contextmanager
def turned(lab: Stage, *switches: Switch) -> Iterator[None]:
    """Turn several switches on, the first one first, while the block runs.

    Raises:
        CheckFailed: a command failed.
    """
    with ExitStack() as stack:
        for switch in switches:
            stack.enter_context(switch.turned(lab))
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The answer key: where a packet must end and why.

    Attributes:
        place: namespace it ends in.
        hook: hook, function or datapath program of its last line.
        step: of the 19, None beyond them.
        reason: the kernel's or the datapath's own name, empty where there is none.
        why: words that `lab why` must use, empty where it is not asked.
    """

    place: str
    hook: str
    step: Step | None = None
    reason: str = ""
    why: str = ""

    def is_at(self, hop: Hop) -> bool:
        """Whether a line is where the key says."""
        at = hop.namespace == self.place and self.hook in (hop.hook, hop.program)
        return at and hop.step is self.step and self.reason in ("", hop.drop_reason)

    def __str__(self) -> str:
        step = f"step {self.step.number}, " if self.step else ""
        return f"in {self.place} at {step}{self.hook}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one packet sent with the fault: its traces, and what `lab why` says."""

    packets: tuple[Trace, ...]
    answer: Diagnosis


def attempt(
    lab: Stage,
    fault: AbstractContextManager[object] | Switch,
    shot: Shot = UDP,
    *,
    sender: str = "client",
    receiver: str = "server",
) -> Attempt:
    """Send one packet with the fault and return what came of it.

    Args:
        lab: of the scenario.
        fault: a switch, or any context that is the fault.
        shot: what is sent.
        sender, receiver: from where, to where.
    """
    with fault.turned(lab) if isinstance(fault, Switch) else fault:
        recording = follow(lab, sender, receiver, shot, insist=False)
        answer = diagnose(recording, sender)
        if not answer.arrived:
            answer = Examiner(lab, recording, answer, sender).examine()
    return Attempt(recording.packets, answer)


def lesson(
    lab: Stage,
    fault: AbstractContextManager[object] | Switch,
    key: Ends,
    shot: Shot = UDP,
    *,
    sender: str = "client",
    receiver: str = "server",
    restored: bool = True,
) -> None:
    """Send one packet with the fault and one without; state what the key says.

    Args:
        lab: of the scenario.
        fault: a switch, or any context that is the fault.
        key: where the packet must end.
        shot: what is sent.
        sender, receiver: from where, to where.
        restored: without the fault it must arrive.
    """
    tried = attempt(lab, fault, shot, sender=sender, receiver=receiver)
    _state(lab, tried.packets, tried.answer, key)
    if restored:
        eventually(lambda: _arrives(lab, sender, receiver, shot), within_s=_RESTORED_S)
        lab.check("without the fault it arrives", holds=True)


def frame_lesson(lab: Stage, sender: str, frame: bytes, key: Ends, *, device: str = "eth0") -> None:
    """Put one frame on a device; state that it ends where the key says.

    Args:
        lab: of the scenario.
        sender: place where that is.
        frame: with a cookie at the end of its payload.
        key: where it must end.
        device: it leaves.
    """
    with lab.trace() as recording:
        lab.place(sender).inject(frame, device=device)
    # ending early or not, it is one of those with its cookie
    cookie = cookie_of(frame) or 0
    mine = [trace for trace in recording.packets if trace.packet.cookie == f"{cookie:016x}"]
    # nobody waited for an answer: the examiner takes it for a packet that got none
    recording.packets, recording.error = tuple(mine), "timeout"
    answer = Examiner(lab, recording, diagnose(recording, sender), sender).examine()
    _state(lab, recording.packets, answer, key)


def _state(lab: Stage, packets: tuple[Trace, ...], answer: Diagnosis, key: Ends) -> None:
    drops = [hop for trace in packets for hop in trace.drops]
    seen = "; ".join(map(_told, drops)) or _last(packets)
    reason = f", for {key.reason}" if key.reason else ""
    lab.check(f"the packet ends {key}{reason}", any(map(key.is_at, drops)), detail=seen)
    if key.why:
        right = answer.known and key.why in answer.paragraph
        lab.check(f"`lab why` says: {key.why}", right, detail=answer.paragraph)


def _told(hop: Hop) -> str:
    return f"{hop.namespace} {hop.program or hop.hook} {hop.drop_reason}"


def _last(packets: tuple[Trace, ...]) -> str:
    ends = [f"{trace.taken[-1].namespace} {trace.taken[-1].hook}" for trace in packets]
    return f"no drop; last seen: {', '.join(ends) or 'nowhere'}"


def _arrives(lab: Stage, sender: str, receiver: str, shot: Shot) -> bool:
    source, target = lab.place(sender), lab.place(receiver)
    if shot.protocol == "icmp":
        return source.ping(target).ok
    if shot.protocol == "tcp":
        with target.serve_tcp(shot.port):
            return source.connect(target, shot.port, payload=b"?").ok
    with target.serve_udp(shot.port):
        return not source.send_udp(target, shot.port, timeout_s=0.5).error


def _words(line: str) -> list[str]:
    if "{verdicts}" in line:
        (path,) = build([SOURCES / "lessons" / "verdicts.c"])
        line = line.replace("{verdicts}", str(path))
    return line.split()
