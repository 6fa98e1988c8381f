"""Who is asked about packets: tracepoints, functions, or both side by side."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from lab.errors import UnsupportedError
from lab.kernel import probe
from lab.observe.functions import FUNCTION_READING, told_without
from lab.observe.tracer import SETTLE_S, Flow, Tracer
from lab.trace import Trace, Witness, merge

if TYPE_CHECKING:
    from lab.runtime.live import Lab

ELSEWHERE = "lab vm -- lab trace --topology FILE FROM TO"
LOSES = "steps 1-19 with grade probe (no fentry)"
"""What a kernel without fentry cannot give: the next best grades remain."""


class FunctionTracer(Tracer):
    """The second witness: probes on kernel functions, and nothing else.

    Raises:
        UnsupportedError: the kernel lets no function be probed.
    """

    service = "lab.observe.function_collector"
    source = "functions.bpf.c"
    reading = FUNCTION_READING

    def __init__(self, lab: Lab) -> None:
        if not probe.may_probe_functions():
            raise UnsupportedError(f"this kernel cannot show {LOSES}", hint=ELSEWHERE)
        super().__init__(lab)

    def _missing(self, refused: list[str]) -> tuple[str, ...]:
        return told_without(refused)


class BothTracers:
    """Two tracers that are asked for the same packets; their traces are made into one."""

    def __init__(self, lab: Lab) -> None:
        with ExitStack() as stack:
            # first the one that a kernel may refuse: then nothing else was loaded in vain
            self._functions = stack.enter_context(FunctionTracer(lab))
            self._tracepoints = stack.enter_context(Tracer(lab, alone=False))
            self._stack = stack.pop_all()

    def __enter__(self) -> BothTracers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def only_cookie(
        self, cookie: int, *, sender: str = "", destination: str = "", source_port: int = 0
    ) -> None:
        """As :meth:`Tracer.only_cookie`."""
        for tracer in (self._functions, self._tracepoints):
            tracer.only_cookie(
                cookie, sender=sender, destination=destination, source_port=source_port
            )

    def only_flow(self, flow: Flow, *, sender: str = "") -> None:
        """As :meth:`Tracer.only_flow`."""
        for tracer in (self._functions, self._tracepoints):
            tracer.only_flow(flow, sender=sender)

    def traces(self, *, settle_s: float = SETTLE_S) -> tuple[Trace, ...]:
        """Return a trace per packet, of both witnesses where both saw it."""
        ours = self._tracepoints.traces(settle_s=settle_s)
        theirs = list(self._functions.traces(settle_s=settle_s))
        found: list[Trace] = []
        for trace in ours:
            same = [other for other in theirs if _identity(other) == _identity(trace)]
            if not same:
                found.append(trace)
                continue
            # segments of one connection look alike by these numbers: the nearest in time is meant
            other = min(same, key=lambda other: abs(_begin(other) - _begin(trace)))
            theirs.remove(other)
            found.append(merge(trace, other))
        return tuple(found)

    def close(self) -> None:
        """End both; idempotent."""
        self._stack.close()


def _identity(trace: Trace) -> tuple[object, ...]:
    packet = trace.packet
    ends = (packet.source, packet.destination, packet.source_port, packet.destination_port)
    return (packet.cookie, packet.protocol, packet.info, *ends)


def _begin(trace: Trace) -> int:
    return min((hop.ns for hop in trace.taken), default=0)


def open_tracer(lab: Lab, witness: Witness | None) -> Tracer | BothTracers:
    """Return a tracer of the kind asked for, running.

    Args:
        lab: must be up.
        witness: None for the best that the running kernel offers; what is missing is told.

    Raises:
        UnsupportedError: functions are asked for, and the kernel lets none be probed.
    """
    if witness is Witness.TRACEPOINTS:
        return Tracer(lab)
    if witness is Witness.FUNCTIONS:
        return FunctionTracer(lab)
    try:
        return BothTracers(lab)
    except UnsupportedError:
        if witness is Witness.BOTH:
            raise
    tracer = Tracer(lab)
    tracer.missing = (*tracer.missing, f"{LOSES}: lab vm -- lab trace ...")
    return tracer
