"""The sequence diagram for a terminal."""

from __future__ import annotations

from lab.plot.tcp_words import Line, lines
from lab.wire.judge import Fate
from lab.wire.picture import Picture

_WIDTH = 56
_GAP_MS = 60.0


def sequence(picture: Picture) -> str:
    """Return the ladder as text: one line per segment, time of sending in ms on the left."""
    rows = [picture.title, "", f"{'ms':>10}  client{' ' * (_WIDTH - 12)}server"]
    before = None
    for line in lines(picture):
        if before is not None and line.sent_ms - before > _GAP_MS:
            rows.append(f"{'':>10}  :{f'{line.sent_ms - before:.0f} ms later':^{_WIDTH - 2}}:")
        before = line.sent_ms
        rows.append(f"{line.sent_ms:>10.2f}  |{_arrow(line)}|")
    said = (("see", picture.note), ("drawing", picture.seed), ("Linux", picture.linux))
    for name, words in said:
        if words:
            rows += ["", f"{name + ':':>10}  {words}"]
    return "\n".join(rows) + "\n"


def _arrow(line: Line) -> str:
    room = _WIDTH - 2
    text = f" {line.label}{_fate(line)} "
    shaft = room - len(text) - 1
    if line.flight.lost:
        half = max(shaft // 2, 1)
        if line.from_client:
            return f"{text}{'-' * half}X".ljust(room)
        return f"X{'-' * half}{text}".rjust(room)
    if line.from_client:
        return f"{text}{'-' * shaft}>"
    return f"<{'-' * shaft}{text}"


def _fate(line: Line) -> str:
    fate = line.flight.fate
    return "" if fate is Fate.DELIVERED else f" ({fate.value})"
