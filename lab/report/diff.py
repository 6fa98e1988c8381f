"""Two traces side by side, aligned by place and step: what one packet met and the other did not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from enum import StrEnum
from html import escape
from itertools import groupby, zip_longest
from textwrap import wrap

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from lab.report import style
from lab.report.passages import passages
from lab.report.rewrites import rewrites
from lab.trace import Hop, Trace

WIDTH = 100
# a sign, two cells and the bar between them fit into WIDTH
_CELL = 47
_IN_WORDS = frozenset({"verdict", "drop_reason", "evidence", "rewritten"})
"""Fields that a cell tells in words of its own."""
_COMPARED = ("verdict", "drop_reason", "mark", "identity", "ct_state", "program")


class Kind(StrEnum):
    """How two lines compare."""

    SAME = "same"
    CHANGED = "changed"
    ONLY_LEFT = "only left"
    ONLY_RIGHT = "only right"


SIGNS = {Kind.SAME: " ", Kind.CHANGED: "≠", Kind.ONLY_LEFT: "<", Kind.ONLY_RIGHT: ">"}
_STYLES = {Kind.SAME: "", Kind.CHANGED: "bold yellow", Kind.ONLY_LEFT: "bold magenta",
           Kind.ONLY_RIGHT: "bold cyan"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison.

    Attributes:
        left, right: the hops; None where that packet has no such line.
        kind: how they compare; times and addresses of buffers never count.
        fields: names of what differs.
        last: number of the last step that the line speaks of, 0 for a line of one step.
        rewritten: left and right: what of addresses and ports was changed behind this line.
        again: left and right: a step not taken for the reason of the line before.
    """

    left: Hop | None
    right: Hop | None
    kind: Kind
    fields: tuple[str, ...] = ()
    last: int = 0
    rewritten: tuple[str, str] = ("", "")
    again: tuple[bool, bool] = (False, False)


def diff(left: Trace, right: Trace) -> tuple[Row, ...]:
    """Return the comparison of two traces, line by line, in the order of both.

    Lines are aligned by (node, namespace, device, side, step or hook). A step that one packet
    took and the other explains as not taken is a change, not an absence.
    """
    ours, theirs = _lines(left), _lines(right)
    # a long trace repeats its lines: autojunk would take the frequent ones for noise
    matcher = SequenceMatcher(
        None, [_key(hop) for hop in ours], [_key(hop) for hop in theirs], autojunk=False
    )
    rows: list[Row] = []
    for _, a, a_end, b, b_end in matcher.get_opcodes():
        if a_end - a == b_end - b and _keys(ours[a:a_end]) == _keys(theirs[b:b_end]):
            rows += [_row(*pair) for pair in zip(ours[a:a_end], theirs[b:b_end], strict=True)]
            continue
        rows += [Row(hop, None, Kind.ONLY_LEFT) for hop in ours[a:a_end] if hop.taken]
        rows += [Row(None, hop, Kind.ONLY_RIGHT) for hop in theirs[b:b_end] if hop.taken]
    changes = _rewrites(left), _rewrites(right)
    return tuple(_told_once(_rewritten(row, *changes) for row in _merged(rows)))


def _rewrites(trace: Trace) -> dict[int, dict[str, str]]:
    """What was rewritten behind which hop: field -> words, by the hop's identity."""
    found: dict[int, dict[str, str]] = {}
    for one in rewrites(trace):
        found.setdefault(id(one.last), {})[one.field] = f"{one.field} {one.old} → {one.new}"
    return found


def _rewritten(row: Row, ours: dict[int, dict[str, str]], theirs: dict[int, dict[str, str]]) -> Row:
    """Add to a line what the packet's addresses and ports became there."""
    one, two = ours.get(id(row.left), {}), theirs.get(id(row.right), {})
    if not one and not two:
        return row
    kind, fields = row.kind, row.fields
    # the numbers differ from run to run: what counts is whether the same field was changed
    if kind in (Kind.SAME, Kind.CHANGED) and one.keys() != two.keys():
        kind, fields = Kind.CHANGED, (*fields, "rewritten")
    words = ", ".join(one.values()), ", ".join(two.values())
    return replace(row, kind=kind, fields=fields, rewritten=words)


def _told_once(rows: Iterable[Row]) -> Iterator[Row]:
    """Mark steps not taken for the same reason as the line before, on each side."""
    before = ("", "")
    for row in rows:
        now = (_reason(row.left), _reason(row.right))
        again = (bool(now[0]) and now[0] == before[0], bool(now[1]) and now[1] == before[1])
        yield replace(row, again=again) if any(again) else row
        before = now


def _reason(hop: Hop | None) -> str:
    return hop.reason if hop is not None and not hop.taken else ""


def _merged(rows: list[Row]) -> Iterator[Row]:
    """Join neighbouring steps that neither packet took, each for one reason."""
    for reasons, run in groupby(rows, key=_reasons):
        if reasons is None:
            yield from run
            continue
        same = list(run)
        last = same[-1].left
        number = last.step.number if len(same) > 1 and last and last.step else 0
        yield replace(same[0], last=number)


def _reasons(row: Row) -> tuple[str, str] | None:
    if row.left is None or row.right is None or row.left.taken or row.right.taken:
        return None
    return (row.left.reason, row.right.reason)


def _lines(trace: Trace) -> list[Hop]:
    return [hop for passage in passages(trace) for hop in passage.hops]


def _keys(hops: list[Hop]) -> list[tuple[str, ...]]:
    return [_key(hop) for hop in hops]


def _key(hop: Hop) -> tuple[str, ...]:
    what = str(hop.step.number) if hop.step else hop.hook
    return (*hop.place, hop.side.value, what)


def _row(left: Hop, right: Hop) -> Row:
    fields = [name for name in _COMPARED if getattr(left, name) != getattr(right, name)]
    if left.taken is not right.taken:
        # who did not come by has no verdict and no mark: that is one difference, not many
        fields = ["evidence", *(name for name in fields if name == "program")]
    elif not left.taken and left.reason != right.reason:
        fields.append("reason")
    return Row(left, right, Kind.CHANGED if fields else Kind.SAME, tuple(fields))


def differences(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return the rows that differ."""
    return tuple(row for row in rows if row.kind is not Kind.SAME)


def diff_text(left: Trace, right: Trace, *, names: tuple[str, str] = ("left", "right")) -> Text:
    """Return the comparison as styled text in 100 columns; ``.plain`` is for pipes.

    Args:
        left: the first trace.
        right: the second trace.
        names: what the two are called in the head.
    """
    rows = diff(left, right)
    heads = names, (str(left.packet), str(right.packet))
    found = [Text(f"  {_fit(one)} │ {_fit(two)}".rstrip(), style="bold") for one, two in heads]
    place = None
    for row in rows:
        hop = row.left or row.right
        assert hop is not None
        if hop.place != place:
            place = hop.place
            found.append(Text("  " + " · ".join(part for part in place if part), style="bold"))
        if row.kind is Kind.SAME and not hop.taken:
            continue
        found += _lines_of(row)
    found.append(Text(_summary(rows), style="bold"))
    return Text("\n").join(found)


def print_diff(
    left: Trace, right: Trace, console: Console | None = None, *,
    names: tuple[str, str] = ("left", "right"),
) -> None:  # fmt: skip
    """Print the comparison; colours only where the console has them."""
    out = console or Console(highlight=False)
    out.print(diff_text(left, right, names=names), soft_wrap=True)


def _lines_of(row: Row) -> Iterator[Text]:
    """The row as one line, or more where a cell does not fit into one."""
    cells = (_wrapped(_cell(row, side)) for side in (0, 1))
    for number, (one, two) in enumerate(zip_longest(*cells, fillvalue="")):
        sign = " " if number else SIGNS[row.kind]
        yield Text(f"{sign} {_fit(one)} │ {_fit(two)}".rstrip(), style=_STYLES[row.kind])


def _wrapped(words: str) -> list[str]:
    return wrap(words, _CELL, subsequent_indent="     ", drop_whitespace=True) or [""]


def _cell(row: Row, side: int) -> str:
    hop = (row.left, row.right)[side]
    if hop is None:
        return ""
    number = f"{hop.step.number:>2} " if hop.step else "   "
    words = f"{style.symbol(hop)} {number}{style.title(hop)}"
    if row.last and hop.step:
        words = f"{style.symbol(hop)} {hop.step.number}-{row.last}"
    if not hop.taken:
        return f"{words}: not taken, {'as before' if row.again[side] else hop.reason}"
    if hop.dropped:
        return f"{words}: drop, {hop.drop_reason or 'no reason given'}"
    shown = [hop.verdict, row.rewritten[side]]
    shown += [_field(hop, name) for name in row.fields if name not in _IN_WORDS]
    extra = ", ".join(part for part in shown if part)
    return f"{words}: {extra}" if extra else words


def _field(hop: Hop, name: str) -> str:
    value = getattr(hop, name)
    shown = style.mark(value) if name == "mark" else "" if value is None else str(value)
    return f"{name.replace('_', ' ')} {shown or 'none'}"


def _fit(text: str) -> str:
    if cell_len(text) > _CELL:
        text = set_cell_size(text, _CELL - 1) + "…"
    return set_cell_size(text, _CELL)


def _summary(rows: tuple[Row, ...]) -> str:
    found = differences(rows)
    if not found:
        return "the same way, step by step"
    counts = {kind: sum(row.kind is kind for row in found) for kind in Kind}
    changed = counts[Kind.CHANGED]
    return (
        f"{changed} line{' differs' if changed == 1 else 's differ'} (≠), "
        f"{counts[Kind.ONLY_LEFT]} only on the left (<), "
        f"{counts[Kind.ONLY_RIGHT]} only on the right (>)"
    )


_CSS = """
.labdiff{border-collapse:collapse;font:15px/1.4 system-ui,"DejaVu Sans",sans-serif;width:100%}
.labdiff td,.labdiff th{padding:.12em .6em;text-align:left;vertical-align:top;width:49%}
.labdiff td.s,.labdiff th.s{width:2%;font-weight:700}
.labdiff tr.place td{font-weight:700;padding-top:.6em;border-bottom:1px solid #8888}
.labdiff tr.changed td{background:#ffe08a88}.labdiff tr.left td{background:#cc79a744}
.labdiff tr.right td{background:#56b4e944}.labdiff .drop{color:#b83b00;font-weight:700}
"""


def diff_html(left: Trace, right: Trace, *, names: tuple[str, str] = ("left", "right")) -> str:
    """Return the comparison as an HTML table: a sign and a colour per difference."""
    rows = diff(left, right)
    body: list[str] = []
    place = None
    for row in rows:
        hop = row.left or row.right
        assert hop is not None
        if hop.place != place:
            place = hop.place
            words = escape(" · ".join(part for part in place if part))
            body.append(f'<tr class="place"><td class="s"></td><td colspan="2">{words}</td></tr>')
        if row.kind is Kind.SAME and not hop.taken:
            continue
        body.append(_html_row(row))
    heads = "".join(
        f"<th>{escape(name)}<br>{escape(str(trace.packet))}</th>"
        for name, trace in zip(names, (left, right), strict=True)
    )
    return (
        f'<style>{_CSS}</style><table class="labdiff"><caption>{escape(_summary(rows))}</caption>'
        f'<tr><th class="s"></th>{heads}</tr>{"".join(body)}</table>'
    )


def _html_row(row: Row) -> str:
    cells = "".join(
        f"<td{' class=drop' if hop and hop.dropped else ''}>{escape(_cell(row, side))}</td>"
        for side, hop in enumerate((row.left, row.right))
    )
    kind = row.kind.value.removeprefix("only ")
    return f'<tr class="{kind}"><td class="s">{escape(SIGNS[row.kind])}</td>{cells}</tr>'
