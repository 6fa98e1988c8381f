"""The ladder: a packet's way in the terminal, 19 steps per receiving device, in 100 columns."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from lab.report import style
from lab.report.headers import tunnel
from lab.report.passages import NO_EVIDENCE, Line, passages
from lab.report.passages import lines as lines_of
from lab.trace import Evidence, Hop, Side, Trace
from lab.trace.model import Passage

WIDTH = 100
# with symbol and number in front and a blank behind each, WIDTH columns
_COLUMNS = (
    ("step", 20),
    ("program or hook", 18),
    ("evidence", 10),
    ("verdict", 9),
    ("mark", 10),
    ("id", 5),
    ("bytes", 8),
    ("µs", 8),
)
_RIGHT = frozenset({"id", "bytes", "µs"})
_INDENT = " " * 7
_SIDES = {Side.RECEIVE: "receives", Side.SEND: "sends", Side.OTHER: "elsewhere"}


def ladder(trace: Trace, *, lookups: bool = True, legend: bool = True) -> Text:
    """Return the whole ladder as styled text; no line is wider than 100 columns.

    Args:
        trace: of one packet.
        lookups: also the questions that the datapath asked its maps, below their hop.
        legend: begin with the meaning of the symbols.
    """
    rows = [*_head(trace)]
    if legend:
        rows.append(_legend())
    rows += [Text(), _column_heads()]
    node = None
    for passage in passages(trace):
        if passage.place[0] != node:
            node = passage.place[0]
            rows.append(_rule(node or passage.place[1] or "kernel"))
        rows += _passage(passage, lookups=lookups)
    rows += [Text(), *_summary(trace)]
    return Text("\n").join(rows)


def ladder_text(trace: Trace, *, lookups: bool = True, legend: bool = True) -> str:
    """Return the ladder as plain text, as it looks in a file or a failing test."""
    return ladder(trace, lookups=lookups, legend=legend).plain


def print_ladder(trace: Trace, console: Console | None = None, *, lookups: bool = True) -> None:
    """Print the ladder; colours only where the console has them."""
    out = console or Console(highlight=False)
    out.print(ladder(trace, lookups=lookups), soft_wrap=True)


def _head(trace: Trace) -> Iterator[Text]:
    packet = trace.packet
    head = Text(str(packet), style="bold")
    if packet.sender or packet.receiver:
        head.append(f"   {packet.sender or '?'} → {packet.receiver or '?'}", style="not bold")
    if packet.length:
        head.append(f"   {packet.length} bytes", style="not bold")
    yield head
    facts = [f"cookie {packet.cookie}"] if packet.cookie else []
    facts += [f"topology {trace.topology}"] if trace.topology else []
    facts += [f"kernel {trace.kernel}"] if trace.kernel else []
    if facts:
        yield Text(" · ".join(facts), style="dim")
    if trace.ties:
        yield Text(f"packet {packet.number}: " + "; ".join(trace.ties))
    if trace.lost:
        yield Text(
            f"{style.DROPPED} {trace.lost} events were lost: this ladder may have holes",
            style=f"bold {style.DROP_COLOUR}",
        )


def _legend() -> Text:
    # the lines of the others say in words what they mean
    return Text("   ".join(f"{sign} {means}" for sign, means in style.SYMBOLS[:4]), style="dim")


def _column_heads() -> Text:
    return Text("     " + _cells([name for name, _ in _COLUMNS]).rstrip(), style="bold")


def _cells(values: list[str]) -> str:
    cells = []
    for value, (name, width) in zip(values, _COLUMNS, strict=True):
        # counted in columns: a character may take two of them
        text = value if cell_len(value) <= width else set_cell_size(value, width - 1) + "…"
        cells.append(text.rjust(width) if name in _RIGHT else set_cell_size(text, width))
    return " ".join(cells)


def _rule(name: str) -> Text:
    return Text(f"━━ {name} ".ljust(WIDTH, "━"), style="bold")


def _passage(passage: Passage, *, lookups: bool) -> Iterator[Text]:
    _, namespace, device = passage.place
    where = " · ".join(part for part in (namespace, device) if part) or "no device"
    yield Text(f"  {where} {_SIDES[passage.side]}", style="bold italic")
    seen = None
    for line in lines_of(passage):
        if line.hop.taken:
            yield _hop(line)
            outer = _outer(line.hop)
            # once for each tunnel, not on every line inside it
            if outer and outer != seen:
                yield Text(f"{_INDENT}{outer}", style="cyan")
            seen = outer or seen
            yield from _details(line.hop, lookups=lookups)
        else:
            yield from _skipped(line)


def _hop(line: Line) -> Text:
    hop = line.hop
    text = Text(f"{style.symbol(hop)} {line.number:>2} ", style=_line_style(hop))
    cells = [
        style.title(hop),
        hop.program or hop.hook,
        str(hop.evidence),
        hop.verdict,
        style.mark(hop.mark),
        style.number(hop.identity),
        _bytes(hop),
        style.microseconds(hop.us),
    ]
    row = _cells(cells)
    text.append(row, style=_line_style(hop))
    # a dropped line is red as a whole: a second colour inside would hide that
    if not hop.dropped:
        # 2: the blanks behind the first two columns
        start = len(text) - len(row) + _COLUMNS[0][1] + _COLUMNS[1][1] + 2
        text.stylize(style.COLOURS[hop.evidence], start, start + _COLUMNS[2][1])
    text.rstrip()
    return text


def _line_style(hop: Hop) -> str:
    if hop.dropped:
        return f"bold {style.DROP_COLOUR}"
    return "dim" if hop.evidence is Evidence.IMPLIED else ""


def _bytes(hop: Hop) -> str:
    data = hop.before if hop.before is not None else hop.after
    length = hop.length or len(data or b"")
    if not length:
        return ""
    outer = tunnel(data, hop.link_layer) if data else None
    return f"{length - outer.overhead}+{outer.overhead}" if outer else str(length)


def _outer(hop: Hop) -> str:
    data = hop.before if hop.before is not None else hop.after
    found = tunnel(data, hop.link_layer) if data else None
    return str(found) if found else ""


def _details(hop: Hop, *, lookups: bool) -> Iterator[Text]:
    if hop.dropped:
        why = hop.drop_reason or "no reason given"
        by = f" by {hop.program}" if hop.program else f" in {hop.hook}"
        yield Text(_fit(f"{_INDENT}{style.DROPPED} dropped{by}: {why}"), style=_line_style(hop))
    if hop.ct_state:
        yield Text(_fit(f"{_INDENT}conntrack: {hop.ct_state}"), style="dim")
    if hop.values:
        told = "  ".join(f"{name}={value}" for name, value in hop.values)
        yield Text(_fit(f"{_INDENT}{told}"), style="magenta")
    if lookups:
        for look_up in hop.lookups:
            found = "no entry" if look_up.value is None else look_up.value
            yield Text(_fit(f"{_INDENT}{look_up.map}[{look_up.key}] = {found}"), style="dim")
    for met in hop.met:
        decided = hop.dropped and met.verdict in ("drop", "block")
        yield Text(_fit(f"{_INDENT}{met}"), style=_line_style(hop) if decided else "dim")


def _skipped(line: Line) -> Iterator[Text]:
    sign = style.symbol(line.hop)
    what = f"{line.number:>2} "
    what += line.hop.step.title if line.hop.step and len(line.steps) == 1 else "steps"
    means = line.hop.reason if line.hop.reason == NO_EVIDENCE else f"not taken: {line.hop.reason}"
    head = f"{sign} {what:<24}"
    for part in wrap(means, WIDTH - len(head), break_long_words=True) or [""]:
        yield Text(head + part, style="dim")
        head = " " * len(head)


def _fit(text: str) -> str:
    return text if cell_len(text) <= WIDTH else set_cell_size(text, WIDTH - 1) + "…"


_ENDS = {
    style.DROPPED: f"bold {style.DROP_COLOUR}",
    style.SEEN: "bold green",
    style.UNKNOWN: "bold yellow",
}


def _summary(trace: Trace) -> Iterator[Text]:
    last = max((hop.us for hop in trace.taken if hop.us is not None), default=None)
    after = f" after {last:.1f} µs" if last is not None else ""
    sign, words = style.ending(trace)
    for line in wrap(
        f"{sign} {words}{after * (sign == style.SEEN)}", WIDTH, subsequent_indent="  "
    ):
        yield Text(line, style=_ENDS[sign])
    if trace.witnesses is not None:
        for line in wrap(str(trace.witnesses), WIDTH, subsequent_indent="  "):
            yield Text(line)
    for gap in trace.missing:
        lines = wrap(f"this kernel cannot show: {gap}", WIDTH - 6)
        yield Text(
            "\n".join(("  " if not n else "    ") + one for n, one in enumerate(lines)), style="dim"
        )
