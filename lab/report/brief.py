"""A packet's way in a few lines: one for each place it passed, for traffic that goes by."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from lab.report import style
from lab.report.passages import passages
from lab.trace import Hop, Side, Trace
from lab.trace.model import Passage

WIDTH = 100
_WHERE = 34
_SIDES = {Side.RECEIVE: "receives", Side.SEND: "sends", Side.OTHER: ""}


def brief(trace: Trace) -> Text:
    """Return the packet's headline, a line per place it passed, and how it ended.

    Steps that were not taken are left out; no line is wider than 100 columns.
    """
    rows = [_head(trace)]
    for passage in passages(trace):
        taken = [hop for hop in passage.hops if hop.taken]
        if taken:
            rows.append(_passage(passage, taken))
    sign, words = style.ending(trace)
    colour = {style.DROPPED: f"bold {style.DROP_COLOUR}", style.SEEN: "green"}.get(sign, "yellow")
    rows.append(Text(_fit(f"  {sign} {words}"), style=colour))
    return Text("\n").join(rows)


def _head(trace: Trace) -> Text:
    packet = trace.packet
    first = min((hop.ns for hop in trace.taken), default=0)
    when = datetime.fromtimestamp((first + trace.wall_ns) / 1e9, UTC).strftime("%H:%M:%S.%f")
    parts = [f"{when} {packet}"]
    parts += [packet.info] if packet.info else []
    if packet.sender or packet.receiver:
        parts.append(f"{packet.sender or '?'} → {packet.receiver or '?'}")
    parts += [f"{packet.length} bytes"] if packet.length else []
    parts += [f"cookie {packet.cookie}"] if packet.cookie else []
    return Text(_fit("   ".join(parts)), style="bold")


def _passage(passage: Passage, taken: list[Hop]) -> Text:
    _, namespace, device = passage.place
    where = " · ".join(part for part in (namespace, device) if part) or "no device"
    left = f"  {where} {_SIDES[passage.side]}".ljust(_WHERE)
    last = taken[-1].us
    right = f"{last:9.1f} µs" if last is not None else ""
    room = WIDTH - cell_len(left) - cell_len(right) - 2
    # neighbouring lines may be one hook seen twice, by a probe and by its program
    hooks = " ".join(hook for hook, _ in groupby(_word(hop) for hop in taken))
    dropped = any(hop.dropped for hop in taken)
    text = Text(left, style="italic")
    text.append(set_cell_size(_fit(hooks, room), room), style=style.DROP_COLOUR if dropped else "")
    text.append(f"  {right}", style="dim")
    text.rstrip()
    return text


def _word(hop: Hop) -> str:
    word = str(hop.step.number) if hop.step else hop.hook
    if hop.program:
        word = f"{word}:{hop.hook}" if hop.step else hop.hook
    if hop.dropped:
        return f"{style.DROPPED}{word}"
    return f"{word}→{hop.verdict}" if hop.verdict == "redirect" else word


def _fit(text: str, width: int = WIDTH) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
