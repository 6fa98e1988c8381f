"""Where a packet's own addresses and ports were changed on its way: the marks of translation."""

from __future__ import annotations

from dataclasses import dataclass

from lab.report.headers import Layer, layers
from lab.trace import Hop, Trace

_FIELDS = {
    "ipv4": ("source", "destination"),
    "ipv6": ("source", "destination"),
    "udp": ("source port", "destination port"),
    "tcp": ("source port", "destination port"),
}


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One field of the innermost headers that changed between two sights of the packet.

    Attributes:
        field: ``source``, ``destination``, ``source port`` or ``destination port``.
        old, new: its values.
        last: the last hop that saw the old value.
        first: the first hop that saw the new one.
        programs: that ran between them, the one of ``last`` included, in order.
    """

    field: str
    old: str
    new: str
    last: Hop
    first: Hop
    programs: tuple[str, ...]

    @property
    def program(self) -> str:
        """The first program that can have done it, empty if the kernel itself must have."""
        return self.programs[0] if self.programs else ""


def rewrites(trace: Trace) -> tuple[Rewrite, ...]:
    """Return every change of innermost address or port, in order; encapsulation is none."""
    found: list[Rewrite] = []
    last: Hop | None = None
    known: dict[str, str] = {}
    programs: list[str] = []
    for hop in trace.taken:
        if hop.before is not None:
            now = _innermost(layers(hop.before, hop.link_layer))
            if last is not None:
                found += [
                    Rewrite(name, known[name], now[name], last, hop, tuple(programs))
                    for name in now
                    if name in known and known[name] != now[name]
                ]
            # kept over a sight that shows less (a fragment has no ports)
            known, last, programs = known | now, hop, []
        programs += [hop.program] * bool(hop.program)
    return tuple(found)


def _innermost(found: tuple[Layer, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for layer in found:
        # a frame inside another: what was read so far belongs to the tunnel
        if layer.name == "ethernet":
            values = {}
        values |= {name: layer.get(name) for name in _FIELDS.get(layer.name, ())}
    return values
