"""Stating what a packet must have done: in order, never, dropped here, delivered there.

Every statement raises `CheckFailed` at once if it does not hold; the message tells the packet's
story with the first difference marked. A trace with losses fails every statement: what was not
seen may have happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import CheckFailed, InputError
from lab.names import VXLAN_PORT
from lab.trace.steps import Side, Step

if TYPE_CHECKING:
    from lab.trace.model import Hop, Trace

What = Step | str
"""A step, or ``HOOK`` or ``HOOK@PLACE``: a hook's or program's name, a node, pod or device."""


class Expectation:
    """Statements about one trace; each returns the expectation, so that they can be chained.

    Raises:
        CheckFailed: events were lost: nothing can be stated.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        if trace.lost:
            raise CheckFailed(
                f"{trace.lost} events were lost while {trace.packet} was recorded",
                hint="record again with less traffic beside it, or a narrower filter",
            )

    def passes(self, *whats: What) -> Expectation:
        """The packet passed these, in this order; others may lie between them."""
        lines = list(self.trace.taken)
        at = 0
        for what in whats:
            found = next((i for i in range(at, len(lines)) if matches(lines[i], what)), None)
            if found is None:
                before = f" after {lines[at - 1].hook}" if at else ""
                self._fail(f"the packet did not pass {what}{before}", at - 1)
            # _fail always raises, which the type checker cannot see
            assert found is not None
            at = found + 1
        return self

    def never(self, *whats: What) -> Expectation:
        """The packet passed none of these."""
        for index, hop in enumerate(self.trace.taken):
            for what in whats:
                if matches(hop, what):
                    self._fail(f"the packet passed {what}, which it must not", index)
        return self

    def only(self, *hooks: str, namespace: str | None = None) -> Expectation:
        """In a namespace (or all) the packet passed exactly these hooks, in this order."""
        lines = [hop for hop in self.trace.at(namespace=namespace) if hop.taken]
        # a hook reported by two programs, or before and after it, is passed once
        seen = _once(hop.hook for hop in lines)
        if seen != list(hooks):
            differs = next(
                (i for i, (a, b) in enumerate(zip(seen, hooks, strict=False)) if a != b),
                min(len(seen), len(hooks)),
            )
            wanted = hooks[differs] if differs < len(hooks) else "the end"
            got = seen[differs] if differs < len(seen) else "nothing more"
            marked = next((h for h in lines if h.hook == got), None)
            index = self.trace.taken.index(marked) if marked else len(self.trace.taken) - 1
            self._fail(f"expected {wanted} as number {differs + 1}, saw {got}", index)
        return self

    def dropped(self, what: What | None = None, *, reason: str | None = None) -> Expectation:
        """The packet was dropped: at ``what`` and for ``reason``, where they are given."""
        drops = self.trace.drops
        if not drops:
            self._fail("the packet was not dropped", len(self.trace.taken) - 1)
        for drop in drops:
            if (what is None or matches(drop, what)) and reason in (None, drop.drop_reason):
                return self
        last = drops[-1]
        self._fail(
            f"expected a drop at {what or 'any place'} for {reason or 'any reason'}, "
            f"it was at {last.hook} for {last.drop_reason}",
            self.trace.taken.index(last),
        )
        return self

    def delivered(self, to: str | None = None) -> Expectation:
        """A socket was woken with the packet in its queue: in namespace ``to``, if given."""
        # woken is the end: a packet in the queue of a socket that nobody told is not delivered yet
        ends = [h for h in self.trace.taken if h.step is Step.DATA_READY and not h.dropped]
        if not any(to in (None, hop.namespace) for hop in ends):
            where = f" to {to}" if to else ""
            self._fail(f"the packet was not delivered{where}", len(self.trace.taken) - 1)
        return self

    def rewritten(
        self, *, source: str | None = None, destination: str | None = None
    ) -> Expectation:
        """On its last sight the packet had these addresses, which it did not begin with.

        A tunnel around it changes nothing: its own addresses are meant.
        """
        for name, wanted, began, at in (
            # offsets in the IPv4 header
            ("source", source, self.trace.packet.source, 12),
            ("destination", destination, self.trace.packet.destination, 16),
        ):
            if wanted is None:
                continue
            index, last = next(
                (i, h) for i, h in reversed(list(enumerate(self.trace.taken))) if h.before
            )
            data = last.after or last.before or b""
            # `after` always begins with the network header (lab.observe.assemble)
            start = _ETHERNET_BYTES if last.link_layer == "ethernet" and not last.after else 0
            start += _inside(data[start:])
            now = str(IPv4Address(data[start + at : start + at + 4]))
            if now != wanted or now == began:
                self._fail(f"expected {name} {wanted} at the end, it is {now}", index)
        return self

    def golden(self, path: Path, *, update: bool = False) -> Expectation:
        """The packet's story equals the one in a file, times, addresses and numbers aside.

        Args:
            path: written by this method.
            update: write it anew instead of comparing.

        Raises:
            InputError: the file is not there.
        """
        story = list(outline(self.trace))
        if update:
            path.write_text("\n".join(story) + "\n")
            return self
        try:
            wanted = path.read_text().splitlines()
        except OSError as error:
            raise InputError(
                f"golden trace {path}: {error.strerror}", hint="write it with --update-golden"
            ) from error
        for number, (now, then) in enumerate(_padded(story, wanted)):
            if now != then:
                self._fail(
                    f"differs from {path.name} in line {number + 1}: expected "
                    f"{then or 'the end'!r}, saw {now or 'the end'!r}",
                    min(number, len(self.trace.taken) - 1),
                )
        return self

    def _fail(self, statement: str, marked: int) -> None:
        raise CheckFailed(
            f"{statement}\n{story(self.trace, marked)}",
            hint="the first difference is marked with >",
        )


def matches(hop: Hop, what: What) -> bool:
    """Return whether a line is about a step, or about ``HOOK@PLACE``."""
    if isinstance(what, Step):
        return hop.step is what
    name, _, place = what.partition("@")
    names = {hop.hook, hop.program, hop.step.title if hop.step else hop.hook}
    # spoken (from-container) or as C calls it (cil_from_container)
    named = name in names or f"cil_{name.replace('-', '_')}" in names
    return named and (not place or place in hop.place)


def story(trace: Trace, marked: int = -1) -> str:
    """Return the packet's lines as plain text, one of them marked with ``>``."""
    lines = []
    for index, hop in enumerate(trace.taken):
        sign = ">" if index == marked else " "
        step = f"{hop.step.number:2}" if hop.step else "  "
        where = "/".join(filter(None, (hop.namespace, hop.device)))
        end = " ".join(filter(None, (hop.verdict, hop.drop_reason)))
        lines.append(f"{sign} {hop.us or 0:8.1f} us  {where:24} {step} {hop.hook:18} {end}")
    return "\n".join(line.rstrip() for line in lines)


def outline(trace: Trace) -> Iterator[str]:
    """Yield one line per line taken: what stays the same from run to run."""
    for hop in trace.taken:
        if hop.hook in _FLEETING:
            continue
        side = "receives" if hop.side is Side.RECEIVE else "sends"
        parts = [*hop.place, side, hop.hook, hop.program, hop.verdict, hop.drop_reason]
        yield " ".join(part for part in parts if part)


_FLEETING = frozenset({"neighbour", "napi_poll", "read"})
"""Lines that depend on what happened before (a known neighbour is not asked for again), or on when
the application is scheduled."""


_ETHERNET_BYTES = 14
_UDP = 17
_VXLAN_BYTES = 8 + 8 + _ETHERNET_BYTES
"""From the UDP header to the IP header of the packet inside."""


def _inside(packet: bytes) -> int:
    """Return where in an IP packet the packet inside its tunnel begins, 0 where there is none."""
    header = (packet[0] & 15) * 4 if packet else 0
    port = int.from_bytes(packet[header + 2 : header + 4], "big")
    tunnelled = len(packet) > header + _VXLAN_BYTES and packet[9] == _UDP and port == VXLAN_PORT
    return header + _VXLAN_BYTES if tunnelled else 0


def _once(hooks: Iterator[str]) -> list[str]:
    seen: list[str] = []
    for hook in hooks:
        if hook not in seen[-1:]:
            seen.append(hook)
    return seen


def _padded(one: list[str], two: list[str]) -> Iterator[tuple[str, str]]:
    length = max(len(one), len(two))
    for index in range(length):
        yield (
            one[index] if index < len(one) else "",
            two[index] if index < len(two) else "",
        )
