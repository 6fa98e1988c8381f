"""Drawings in SVG: a topology, or the way of a packet through it. Self-contained, no script."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from lab.model import Topology
from lab.report import style
from lab.report.scene import Box, Scene, Wire, scene
from lab.report.ways import around, in_stack
from lab.trace import Hop, Trace

# One drawing serves light and dark pages: colours are variables with a light default.
CSS = """
.lab text{font-family:system-ui,"DejaVu Sans",sans-serif;fill:var(--ink,#1a1a1a)}
.lab .node>rect{fill:var(--node,#f3f5f7);stroke:var(--line,#5b6770);stroke-width:2}
.lab .pod>rect{fill:var(--pod,#e2f1ea);stroke:#009e73;stroke-width:2}
.lab .device>rect,.lab .port>rect{fill:var(--device,#fff);stroke:var(--line,#5b6770);stroke-width:2}
.lab .stack>rect{fill:var(--stack,#fff7e3);stroke:#b58900;stroke-width:2;stroke-dasharray:6 4}
.lab .underlay>rect{fill:var(--underlay,#dcebf7);stroke:#0072b2;stroke-width:2}
.lab .world>rect{fill:var(--node,#f3f5f7);stroke:var(--line,#5b6770);stroke-width:2}
.lab .name{font-size:19px;font-weight:600}
.lab .node>.name{font-size:24px;font-weight:700}
.lab .note{font-size:13.5px;fill:var(--soft,#48525a)}
.lab .device>.note{font-size:12.5px;fill:var(--hook,#0b5c8a)}
.lab .wire{stroke:var(--line,#5b6770);stroke-width:3;fill:none}
.lab .way{fill:none;stroke:#0072b2;stroke-width:5;stroke-linejoin:round;opacity:.75}
.lab .stop circle{fill:#0072b2;stroke:#fff;stroke-width:2}
.lab .stop text{fill:#fff;font-size:14px;font-weight:700;text-anchor:middle}
.lab .way.second{stroke:#e69f00;stroke-dasharray:14 7}
.lab .stop.second circle{fill:#b87a00}
.lab .stop.drop circle{fill:#d55e00}
.lab .stop path{stroke:#fff;stroke-width:4.5;stroke-linecap:round}
"""


def topology_svg(topology: Topology) -> str:
    """Return the drawing of a topology with the names and addresses of the running lab."""
    drawing = scene(topology)
    return document(drawing, ink(drawing), f"Topology {topology.name}")


def trace_svg(trace: Trace, topology: Topology | None = None) -> str:
    """Return the drawing of the places with the packet's way in it, numbered in order.

    A drop is a cross in red where it happened.
    """
    drawing = scene(topology, trace)
    stops = _stops(drawing, trace)
    marks = "".join(_stop(str(n), at, hop) for n, (at, hop) in enumerate(stops, start=1))
    content = ink(drawing, below=_line(stops)) + marks
    return document(drawing, content, f"Trace of {trace.packet}")


def ways_svg(
    left: Trace,
    right: Trace,
    topology: Topology | None = None,
    *,
    names: tuple[str, str] = ("left", "right"),
) -> str:
    """Return one drawing with the ways of two packets, the second dashed and in orange.

    A way that leads into a node's IP stack touches its box; one that does not, goes around it.
    """
    drawing = scene(topology, replace(left, hops=left.hops + right.hops))
    # the second aside: where both go the same way, both are to be seen
    first, second = (_stops(drawing, in_stack(way), aside=34 * n) for n, way in
                     enumerate((left, right)))  # fmt: skip
    ends = "".join(
        _stop("✓", *stops[-1], way) for way, stops in enumerate((first, second)) if stops
    )
    lines = _line(around(drawing, first)) + _line(around(drawing, second), "way second")
    legend = "".join(
        f'<g class="key"><path class="way{" second" * n}" d="M{40 + 330 * n} 14h60"/>'
        f"{_text('note', 110 + 330 * n, 19, name, 'start')}</g>"
        for n, name in enumerate(names)
    )
    content = ink(drawing, below=lines) + ends + legend
    return document(drawing, content, f"{names[0]} and {names[1]}")


def document(drawing: Scene, content: str, title: str) -> str:
    """Wrap drawn content into an SVG document of the scene's size."""
    size = f'viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lab" {size} role="img" '
        f'style="max-width:{drawing.width:.0f}px;width:100%;height:auto;background:'
        f'var(--page,#fff)"><title>{escape(title)}</title><style>{CSS}</style>{content}</svg>'
    )


def ink(drawing: Scene, *, below: str = "") -> str:
    """Return the SVG elements of wires and boxes; ``below`` is drawn under the inner boxes."""
    wires = "".join(_wire(wire) for wire in drawing.wires)
    # SVG paints in order: nodes, then wires and ways over them, then what stands on those
    outer = "".join(_box(box) for box in drawing.boxes if box.kind == "node")
    inner = "".join(_box(box) for box in drawing.boxes if box.kind != "node")
    return outer + wires + below + inner


def _wire(wire: Wire) -> str:
    (x1, y1), (x2, y2) = wire.start, wire.end
    return f'<path class="wire" d="M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}"/>'


def _box(box: Box) -> str:
    key = f' data-key="{escape(box.key)}"' if box.key else ""
    return (
        f'<g class="{box.kind}"{key}><rect x="{box.x:.0f}" y="{box.y:.0f}" rx="9" '
        f'width="{box.width:.0f}" height="{box.height:.0f}"/>{_words(box)}</g>'
    )


def _words(box: Box) -> str:
    if box.kind in ("node", "underlay"):
        # Room inside is for others: name and notes on one line, at the upper or lower edge.
        y = box.y + 33 if box.kind == "node" else box.y + box.height - 14
        return _text("name", box.x + 20, y, box.label, "start") + _text(
            "note", box.x + box.width - 20, y, " · ".join(box.notes), "end"
        )
    x, _ = box.centre
    if box.kind == "pod":
        rest = "".join(
            _text("note", x, box.y + 44 + 16 * n, note) for n, note in enumerate(box.notes)
        )
        return _text("name", x, box.y + 25, _cut(box.label, box.width)) + rest
    if not box.notes:
        return _text("name", x, box.y + box.height / 2 + 6, _cut(box.label, box.width))
    top = box.y + box.height / 2 - 8 * len(box.notes) + 6
    rest = "".join(_text("note", x, top + 18 + 16 * n, note) for n, note in enumerate(box.notes))
    return _text("name", x, top, _cut(box.label, box.width)) + rest


def _cut(label: str, width: float) -> str:
    # a letter of the name is at most twelve units wide
    room = int(width / 12)
    return label if len(label) <= room else label[: room - 1] + "…"


def _text(kind: str, x: float, y: float, words: str, anchor: str = "middle") -> str:
    if not words:
        return ""
    at = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {at}>{escape(words)}</text>'


def _line(stops: list[tuple[tuple[float, float], Hop]], kind: str = "way") -> str:
    points = " ".join(f"{x:.0f},{y:.0f}" for (x, y), _ in stops)
    return f'<polyline class="{kind}" points="{points}"/>'


def _stops(drawing: Scene, trace: Trace, aside: float = 0) -> list[tuple[tuple[float, float], Hop]]:
    """Return one stop per visit of a place; of its hops the drop, else the last one."""
    stops: list[tuple[tuple[float, float], Hop]] = []
    places = drawing.along(hop.place for hop in trace.taken)
    for hop, place in zip(trace.taken, places, strict=True):
        at = drawing.at(place)
        # of several hops at one place a drop is what the reader looks for
        if stops and stops[-1][0] == at:
            stops[-1] = (at, stops[-1][1] if stops[-1][1].dropped else hop)
        else:
            stops.append((at, hop))
    return _beside(stops, aside)


def _beside(
    stops: list[tuple[tuple[float, float], Hop]], aside: float
) -> list[tuple[tuple[float, float], Hop]]:
    # Numbers stand at the left edge of a box and step aside where one stands already.
    taken: dict[tuple[float, float], int] = {}
    placed = []
    for (x, y), hop in stops:
        visits = taken[x, y] = taken.get((x, y), 0) + 1
        # on the upper edge, above the name
        placed.append(((x + 12 + 30 * (visits - 1) + aside, y - 26), hop))
    return placed


def _stop(number: str, at: tuple[float, float], hop: Hop, way: int = 0) -> str:
    x, y = at
    words = f"{style.title(hop)} on {hop.device or hop.namespace}"
    drop = hop.dropped
    if drop:
        words += f": dropped, {hop.drop_reason}"
        sign = f'<path d="M{x - 6:.0f} {y - 6:.0f}l12 12m0 -12l-12 12"/>'
    else:
        sign = f'<text x="{x:.0f}" y="{y + 5:.0f}">{number}</text>'
    return (
        f'<g class="stop{" drop" * drop}{" second" * way}"><title>{escape(words)}</title>'
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{16 if drop else 13}"/>{sign}</g>'
    )
