"""What watching adds to a packet's time, measured in the lab in which the packet was watched."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.observe.tracer import Tracer
from lab.packets import new_cookie
from lab.trace import Trace

if TYPE_CHECKING:
    from lab.runtime.live import Lab, Place

_ROUNDS = 40
_TIMEOUT_S = 0.3


def cost_of_a_sight_us(lab: Lab, trace: Trace) -> float | None:
    """Return what one sight adds, in microseconds; None where it cannot be measured.

    Datagrams go from the packet's sender to its receiver and back, alternately with the tracer
    armed for them and not: the difference of the medians, shared by the sights on the way.

    Args:
        lab: must be up.
        trace: of a packet between two of its pods or nodes.
    """
    packet = trace.packet
    if not packet.sender or not packet.receiver:
        return None
    try:
        return _measured(lab, lab.place(packet.sender), lab.place(packet.receiver))
    except LabError:
        return None  # a packet that does not get through has no round trip


def _measured(lab: Lab, source: Place, goal: Place) -> float | None:
    cookie = new_cookie()
    times: dict[bool, list[float]] = {True: [], False: []}
    with ExitStack() as stack:
        server = stack.enter_context(goal.serve_udp(0))
        tracer = stack.enter_context(Tracer(lab))
        for number in range(2 * _ROUNDS + 2):
            watched = bool(number % 2)
            if watched:
                tracer.only_cookie(cookie)
            else:
                tracer.pause()
            sent = source.send_udp(goal, server.port, cookie=cookie, timeout_s=_TIMEOUT_S)
            if sent.error:
                return None
            if number >= 2:  # the first of each kind finds neighbours and caches
                times[watched].append(sent.rtt_us)
        sights = sum(len({hop.ns for hop in one.taken}) for one in tracer.traces())
    if not sights:
        return None
    # sights of the first round, which is not timed, are among the recorded ones
    added = median(times[True]) - median(times[False])
    # below 0 is the noise of a busy machine
    return max(0.0, added) * (_ROUNDS + 1) / sights
