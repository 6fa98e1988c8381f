"""The truth table of a lab as text, as a drawing and as a page: rows send, columns receive."""

from __future__ import annotations

from html import escape

from lab.k8s.matrix import ALLOW, UNKNOWN, Cell, Change, Matrix, PortNumber

ALLOWED, DENIED, DIFFERS, SELF = "✓", "✗", "!", "·"
_ALLOW_COLOUR, _DENY_COLOUR, _DIFFER_COLOUR = "#009e73", "#d9d9d9", "#d55e00"

_HEIGHT = 24
_STRIP = 10
"""A cell is this high, and so wide per port, in pixels."""

_LETTER = 7.6


def symbol(cell: Cell | None) -> str:
    """Return one character: what happened, ``!`` where that is not what ought to happen."""
    if cell is None:
        return SELF
    if cell.differs:
        return DIFFERS
    return ALLOWED if _value(cell) == ALLOW else DENIED


def _value(cell: Cell) -> str:
    # without a measurement the model's answer is shown
    return cell.expected if cell.measured == UNKNOWN else cell.measured


def text(matrix: Matrix) -> str:
    """Return one table per port, columns numbered like the rows, and what differs below."""
    cells = {(c.source, c.destination, c.port): c for c in matrix.cells}
    # numbers head the columns: names would make them too wide for a terminal
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
    """Return the table as a drawing: a cell per pair, cut into one strip per port.

    Green is allowed, grey with a dot denied, orange with a cross differs from the model.
    """
    # no text can be measured without a renderer: a letter counts as this wide
    longest = max(len(name) for name in matrix.names)
    # heads are turned by 60 degrees: they rise by the sine of it
    left, top = 20 + longest * _LETTER, 20 + longest * _LETTER * 0.87
    cell = max(_HEIGHT, _STRIP * len(matrix.ports) + 4)
    width = max(left + len(matrix.names) * cell + longest * _LETTER / 2, 760)
    height = top + len(matrix.names) * _HEIGHT + 70
    cells = {(c.source, c.destination, c.port): c for c in matrix.cells}
    parts = []
    for row, source in enumerate(matrix.names):
        y = top + row * _HEIGHT
        parts.append(f'<text class="r" x="{left - 6:.0f}" y="{y + 16:.0f}">{escape(source)}</text>')
        x = left + row * cell + cell / 2 + 4
        parts.append(
            f'<text transform="translate({x:.0f} {top - 6:.0f}) rotate(-60)">'
            f"{escape(source)}</text>"
        )
        for column, destination in enumerate(matrix.names):
            box = (left + column * cell, y, cell - 4)
            parts += _square(cells, source, destination, matrix.ports, box)
    ports = f"strips of a cell, left to right: {', '.join(map(str, matrix.ports))}"
    for line, words in ((42, ports), (18, summary(matrix))):
        parts.append(f'<text class="n" x="10" y="{height - line:.0f}">{escape(words)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="max-width:{width:.0f}px;background:#fff" role="img"><title>Truth table</title>'
        f"<style>{_CSS}</style>{''.join(parts)}</svg>"
    )


_CSS = (
    "text{font:13px system-ui,'DejaVu Sans',sans-serif;fill:#1a1a1a}.r{text-anchor:end}"
    ".n{font-size:13px}rect{stroke:#fff;stroke-width:1}.x{stroke:#fff;stroke-width:2.5}"
    ".d{fill:#777}"
)


def _square(
    cells: dict[tuple[str, str, PortNumber], Cell],
    source: str,
    destination: str,
    ports: tuple[PortNumber, ...],
    box: tuple[float, float, float],
) -> list[str]:
    left, top, wide = box
    strip = wide / len(ports)
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
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{strip:.1f}" height="{_HEIGHT - 3}" '
            f'fill="{colour}"><title>{escape(words)}</title></rect>'
        )
        middle, centre = x + strip / 2, top + _HEIGHT / 2 - 1
        if cell.differs:
            found.append(
                f'<path class="x" fill="none" d="M{middle - 4:.1f} {centre - 4:.1f}'
                'l8 8m0 -8l-8 8"/>'
            )
        elif _value(cell) != ALLOW:
            found.append(f'<circle class="d" cx="{middle:.1f}" cy="{centre:.1f}" r="1.8"/>')
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
