"""How a packet's way is led through a drawing: into a node's IP stack, or around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from lab.report.scene import Box, Scene
from lab.trace import Hop, SendHook, Step, Trace

Point = tuple[float, float]
_CLEAR = 11
"""Between a way and the box that it goes around, in drawing units."""
_STACK_HOOKS = frozenset(
    {SendHook.ROUTE, SendHook.NF_OUTPUT, SendHook.NF_FORWARD, SendHook.NF_POSTROUTING}
)


def in_stack(trace: Trace) -> Trace:
    """Return a trace whose lines about a node's IP stack stand there, not at the device."""
    hops: list[Hop] = []
    for index, hop in enumerate(trace.hops):
        at = _moved(hop)
        asked = hop.hook == SendHook.ROUTE and hop.node == hop.namespace
        if asked and hops and not _sends(trace.hops[index + 1 :]):
            # a program's own question (bpf_redirect_neigh): it asks where the packet is
            at = replace(hop, device=hops[-1].device)
        hops.append(at)
    return replace(trace, hops=tuple(hops))


def _sends(following: Sequence[Hop]) -> bool:
    """Whether the stack sends what it asked a route for: its chains are next."""
    after = next((hop for hop in following if hop.taken and hop.hook != SendHook.ROUTE), None)
    return after is not None and after.hook in (SendHook.NF_OUTPUT, SendHook.NF_POSTROUTING)


def _moved(hop: Hop) -> Hop:
    # from ip_rcv on the device is only where it came from
    routed = hop.step is not None and hop.step >= Step.IP_RCV
    inside = hop.taken and (routed or hop.hook in _STACK_HOOKS)
    # pods have a stack, too, but no box for it
    return replace(hop, device="") if inside and hop.node == hop.namespace else hop


def around(drawing: Scene, stops: Sequence[tuple[Point, Hop]]) -> list[tuple[Point, Hop]]:
    """Return the stops with bends between them, where the way would lead through a stack."""
    stacks = [box for box in drawing.boxes if box.kind == "stack"]
    led: list[tuple[Point, Hop]] = list(stops[:1])
    for (start, _), (end, hop) in pairwise(stops):
        for box in stacks:
            if not _inside(box, start) and not _inside(box, end) and _crosses(box, start, end):
                led += [(bend, hop) for bend in _bends(box, start, end)]
        led.append((end, hop))
    return led


def _inside(box: Box, at: Point) -> bool:
    x, y = at
    return box.x - 1 <= x <= box.x + box.width and box.y - 1 <= y <= box.y + box.height


def _crosses(box: Box, start: Point, end: Point) -> bool:
    """Whether the straight line passes the box: looked at in small steps."""
    steps = 100
    return any(
        _inside(box, (start[0] + (end[0] - start[0]) * n / steps,
                      start[1] + (end[1] - start[1]) * n / steps))
        for n in range(1, steps)
    )  # fmt: skip


def _bends(box: Box, start: Point, end: Point) -> list[Point]:
    """The corners to pass, on the side on which the way ends (left if that is the middle)."""
    right = max(start[0], end[0]) > box.x + box.width
    side = box.x + box.width + _CLEAR if right else box.x - _CLEAR
    top, bottom = box.y - _CLEAR, box.y + box.height + _CLEAR
    order = (top, bottom) if start[1] < end[1] else (bottom, top)
    low, high = sorted((start[1], end[1]))
    return [(side, y) for y in order if low < y < high]
