"""The truth table of a lab as text, as a drawing and as a page: rows send, columns receive."""

from __future__ import annotations

from html import escape

from lab.k8s.matrix import ALLOW, UNKNOWN, Cell, Change, Matrix, PortNumber

ALLOWED, DENIED, DIFFERS, SELF = "✓", "✗", "!", "·"
_ALLOW_COLOUR, _DENY_COLOUR, _DIFFER_COLOUR = "#009e73", "#d9d9d9", "#d55e00"

_SIZE = 22
_LEFT = 190
_TOP = 150


def symbol(cell: Cell | None) -> str:
    """Return one character: what happened, ``!`` where that is not what ought to happen."""
    if cell is None:
        return SELF
    if cell.differs:
        return DIFFERS
    return ALLOWED if _value(cell) == ALLOW else DENIED


def _value(cell: Cell) -> str:
    return cell.expected if cell.measured == UNKNOWN else cell.measured


def text(matrix: Matrix) -> str:
    """Return one table per port, columns numbered like the rows, and what differs below."""
    cells = {(c.source, c.destination, c.port): c for c in matrix.cells}
    digits = len(str(len(matrix.names)))
    width = max(len(str(word)) for word in (*matrix.names, *matrix.ports))
    lines = []
    for port in matrix.ports:
        head = " ".join(f"{n:>{digits}}" for n in range(1, len(matrix.names) + 1))
        lines.append(f"{str(port):<{width + digits + 1}}  {head}")
        for number, source in enumerate(matrix.names, 1):
            row = " ".join(
                f"{symbol(cells.get((source, destination, port))):>{digits}}"
                for destination in matrix.names
            )
            lines.append(f"{number:>{digits}} {source:<{width}}  {row}")
        lines.append("")
    lines.append(summary(matrix))
    lines += [_difference(cell) for cell in matrix.differences]
    return "\n".join(lines)


def summary(matrix: Matrix) -> str:
    """Return one line: how many flows are allowed and denied, and how many differ."""
    probed = [cell for cell in matrix.cells if cell.measured != UNKNOWN]
    allowed = sum(_value(cell) == ALLOW for cell in matrix.cells)
    words = (
        f"rows send, columns receive: {ALLOWED} {allowed} allowed, "
        f"{DENIED} {len(matrix.cells) - allowed} denied"
    )
    if not probed:
        return words + "; expected only, nothing was sent"
    differing = len(matrix.differences)
    return words + (
        f"; {differing} of {len(probed)} measured flows differ from the model ({DIFFERS})"
        if differing
        else f"; all {len(probed)} measured flows are as the model says"
    )


def _difference(cell: Cell) -> str:
    because = f" ({cell.because[0]})" if cell.because else ""
    return (
        f"{DIFFERS} {cell.source} -> {cell.destination} {cell.port}: "
        f"{cell.expected} expected{because}, {cell.measured} measured"
    )


def svg(matrix: Matrix) -> str:
    """Return the table as a drawing: a square per pair, cut into one strip per port.

    Green is allowed, grey denied, orange with a cross differs; shapes say it without colour.
    """
    count = len(matrix.names)
    width, height = _LEFT + count * _SIZE + 20, _TOP + count * _SIZE + 60
    cells = {(c.source, c.destination, c.port): c for c in matrix.cells}
    parts = []
    for row, source in enumerate(matrix.names):
        y = _TOP + row * _SIZE
        parts.append(f'<text class="r" x="{_LEFT - 6}" y="{y + 15}">{escape(source)}</text>')
        x = _LEFT + row * _SIZE
        parts.append(
            f'<text class="c" transform="translate({x + 15} {_TOP - 6}) rotate(-60)">'
            f"{escape(source)}</text>"
        )
        for column, destination in enumerate(matrix.names):
            parts += _square(cells, source, destination, matrix.ports, (column, row))
    legend = f"strips: {', '.join(map(str, matrix.ports))} · rows send, columns receive"
    parts.append(f'<text class="n" x="10" y="{height - 34}">{escape(legend)}</text>')
    parts.append(f'<text class="n" x="10" y="{height - 14}">{escape(summary(matrix))}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(width, 640)} {height}" '
        f'role="img"><title>Truth table</title><style>{_CSS}</style>{"".join(parts)}</svg>'
    )


_CSS = (
    "text{font:13px system-ui,'DejaVu Sans',sans-serif;fill:#1a1a1a}.r{text-anchor:end}"
    ".n{font-size:14px}rect{stroke:#fff;stroke-width:1}.x{stroke:#fff;stroke-width:2.5}"
    ".d{fill:#777}"
)


def _square(
    cells: dict[tuple[str, str, PortNumber], Cell],
    source: str,
    destination: str,
    ports: tuple[PortNumber, ...],
    at: tuple[int, int],
) -> list[str]:
    left, top = _LEFT + at[0] * _SIZE, _TOP + at[1] * _SIZE
    strip = (_SIZE - 2) / len(ports)
    found = []
    for number, port in enumerate(ports):
        cell = cells.get((source, destination, port))
        if cell is None:
            continue
        x = left + number * strip
        colour = _ALLOW_COLOUR if _value(cell) == ALLOW else _DENY_COLOUR
        colour = _DIFFER_COLOUR if cell.differs else colour
        words = f"{source} → {destination} {port}: {cell.expected}"
        if cell.measured != UNKNOWN:
            words += f", measured {cell.measured}"
        found.append(
            f'<rect x="{x:.1f}" y="{top}" width="{strip:.1f}" height="{_SIZE - 2}" '
            f'fill="{colour}"><title>{escape(words)}</title></rect>'
        )
        middle, centre = x + strip / 2, top + _SIZE / 2 - 1
        if cell.differs:
            found.append(
                f'<path class="x" d="M{middle - 4:.1f} {centre - 4}l8 8m0 -8l-8 8" fill="none"/>'
            )
        elif _value(cell) != ALLOW:
            found.append(f'<circle class="d" cx="{middle:.1f}" cy="{centre}" r="1.6"/>')
    return found


def page(matrix: Matrix, title: str) -> str:
    """Return a self-contained HTML page: the drawing, and every flow that differs."""
    rows = "".join(f"<li>{escape(_difference(cell))}</li>" for cell in matrix.differences)
    listed = f"<h2>Different from the model</h2><ul>{rows}</ul>" if rows else ""
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>{escape(title)}</title>"
        "<style>body{font:16px system-ui,sans-serif;margin:2rem;max-width:1200px}</style>"
        f"<h1>{escape(title)}</h1>{svg(matrix)}{listed}</html>"
    )


def change_text(changes: tuple[Change, ...]) -> str:
    """Return one line per flow that changed, the newly allowed ones first."""
    ordered = sorted(changes, key=lambda change: change.after != ALLOW)
    lines = [
        f"{'+' if change.after == ALLOW else '-'} {change.source} -> {change.destination} "
        f"{change.port}: {change.before} -> {change.after}"
        for change in ordered
    ]
    return "\n".join([*lines, f"{len(changes)} flows changed"])
