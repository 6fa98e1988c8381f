"""A trace as one HTML page that plays it: nothing is fetched, nothing needs root or a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.model import Topology
from lab.report import style
from lab.report.headers import Change, Layer, changes, layers, tunnel
from lab.report.passages import Line, lines, passages
from lab.report.scene import Place, Scene, scene
from lab.report.svg import document, ink
from lab.trace import Evidence, Hop, LookUp, Trace

# An envelope; over it the outer headers as a second outline, and the cross of a drop.
_PACKET = (
    '<g id="packet"><rect class="outer" x="-34" y="-26" width="68" height="52" rx="9"/>'
    '<rect x="-24" y="-17" width="48" height="34" rx="5"/>'
    '<path class="flap" d="M-22 -14L0 4L22 -14"/>'
    '<path class="cross" d="M-13 -11L13 11M13 -11L-13 11"/></g>'
)
# whatever a trace may hold, the browser is told to fetch nothing
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(traces: Trace | Sequence[Trace], topology: Topology | None = None) -> str:
    """Return the page: the drawing, the packet moving through it hook by hook, its headers.

    Arrow keys and buttons step, space plays; ``#play`` in the address starts it, ``#step=7``
    opens it at the eighth line. Of several packets (a connection) one is chosen from a list,
    and playing goes on from one to the next.

    Args:
        traces: of one packet, or of several in their order.
        topology: where they were recorded; adds pods and devices that no packet met.
    """
    several = (traces,) if isinstance(traces, Trace) else tuple(traces)
    drawing = scene(topology, _together(several))
    value = {
        "packets": [_packet(trace, drawing) for trace in several],
        "colours": {grade.word: colour for grade, colour in style.COLOURS.items()},
        "means": {grade.word: grade.means for grade in Evidence},
    }
    title = str(several[0].packet) if several else "no packet"
    moving = any(trace.hops for trace in several)
    figure = document(drawing, ink(drawing) + _PACKET * moving, f"Way of {title}")
    # "<" never appears in the data, so no text in a packet can end the script element.
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return _HTML.format(
        policy=_POLICY,
        title=escape(title),
        css=_file("page.css"),
        figure=figure,
        legend=_legend(),
        data=data,
        script=_file("page.js"),
    )


def _together(traces: Sequence[Trace]) -> Trace | None:
    """Return one trace with the places of all, for the drawing."""
    if not traces:
        return None
    return replace(traces[0], hops=tuple(hop for trace in traces for hop in trace.hops))


def _packet(trace: Trace, drawing: Scene) -> dict[str, Any]:
    sign, words = style.ending(trace)
    name = f"{trace.packet} {trace.packet.info}".strip()
    return {
        "name": name,
        "facts": _facts(trace),
        "lost": f"{style.DROPPED} {trace.lost} events were lost: there may be holes"
        if trace.lost
        else "",
        "end": f"{sign} {words}",
        "kind": {style.DROPPED: "end bad", style.SEEN: "end good"}.get(sign, "end"),
        "hops": _hops(trace, drawing),
    }


def write_page(
    traces: Trace | Sequence[Trace], path: Path, topology: Topology | None = None
) -> Path:
    """Write the page to a file and return its path.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.write_text(page(traces, topology), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", hint="name a file in a folder you may write"
        ) from None
    return path


# style and script are part of the package, also where that is a zip file
def _file(name: str) -> str:
    return files("lab.report").joinpath(name).read_text(encoding="utf-8")


def _facts(trace: Trace) -> str:
    packet = trace.packet
    who = f"{packet.sender} → {packet.receiver}" if packet.sender or packet.receiver else ""
    cookie = f"cookie {packet.cookie}" if packet.cookie else ""
    kernel = f"kernel {trace.kernel}" if trace.kernel else ""
    ties = f"packet {packet.number}: {'; '.join(trace.ties)}" if trace.ties else ""
    return " · ".join(part for part in (who, trace.topology, cookie, kernel, ties) if part)


def _legend() -> str:
    grades = "".join(
        f'<span><span class="grade" style="--c:{style.COLOURS[grade]}">{grade.word}</span> '
        f"{escape(grade.means)}</span>"
        for grade in Evidence
    )
    signs = "   ".join(f"{sign} {means}" for sign, means in style.SYMBOLS)
    return f"{grades}<span>{escape(signs)}</span>"


def _hops(trace: Trace, drawing: Scene) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    earlier: dict[int, Hop] = {}
    shown = [line for passage in passages(trace) for line in lines(passage)]
    for line, place in zip(shown, drawing.along(line.hop.place for line in shown), strict=True):
        hop = line.hop
        # a clone is compared with its own last sight, not with that of the packet beside it
        sight = earlier.get(hop.packet)
        found.append({**_hop(hop, sight), **_named(line), **_stand(drawing, place)})
        if hop.taken and hop.before is not None:
            earlier[hop.packet] = hop
    return found


def _stand(drawing: Scene, place: Place) -> dict[str, Any]:
    x, y = drawing.at(place)
    return {"key": drawing.key(place), "x": round(x), "y": round(y)}


def _named(line: Line) -> dict[str, str]:
    several = len(line.steps) > 1
    return {
        "step": line.number,
        "title": "steps" if several else style.title(line.hop),
        "does": line.steps[0].does if line.steps and not several else "",
        "hook": "" if several else line.hop.hook,
    }


def _hop(hop: Hop, earlier: Hop | None) -> dict[str, Any]:
    shown = hop.before if hop.before is not None else hop.after
    outer = tunnel(shown, hop.link_layer) if shown is not None and hop.taken else None
    return {
        "symbol": style.symbol(hop),
        "program": hop.program,
        "evidence": hop.evidence.word,
        "taken": hop.taken,
        "dropped": hop.dropped,
        "verdict": hop.verdict,
        "drop": hop.drop_reason,
        "reason": hop.reason,
        "mark": style.mark(hop.mark),
        "identity": style.number(hop.identity),
        "ct": hop.ct_state,
        "us": style.microseconds(hop.us),
        "object": hop.object,
        "stack": list(hop.stack),
        "bytes": _bytes(hop, outer.overhead if outer else 0),
        "lookups": [
            *(f"{name} = {value}" for name, value in hop.values),
            *(str(one) for one in hop.met),
            *(_look_up(one) for one in hop.lookups),
        ],
        "headers": _headers(hop, earlier) if hop.taken else [],
        "wrapped": outer is not None,
        "place": _place(hop),
        "where": " · ".join(part for part in hop.place if part),
    }


def _place(hop: Hop) -> str:
    return f"{hop.namespace or hop.node} {hop.device}".strip()


def _bytes(hop: Hop, overhead: int) -> str:
    length = hop.length or len(hop.before or b"")
    if not length:
        return ""
    return f"{length - overhead} + {overhead} of outer headers" if overhead else str(length)


def _look_up(one: LookUp) -> str:
    return f"{one.map}[{one.key}] = {'no entry' if one.value is None else one.value}"


def _headers(hop: Hop, earlier: Hop | None) -> list[dict[str, Any]]:
    """Return the headers here, marked where they differ from the last sight of the packet."""
    now = hop.after if hop.after is not None else hop.before
    if now is None:
        return []
    here = layers(now, hop.link_layer)
    if hop.after is not None and hop.before is not None:
        before = layers(hop.before, hop.link_layer)
    elif earlier is not None:
        before = layers(earlier.before or b"", earlier.link_layer)
        before, here = _same_start(before, here)
    else:
        before = here
    old = {layer.name: dict(layer.fields) for layer in before}
    return [_layer(change, old) for change in changes(before, here)]


def _same_start(
    before: tuple[Layer, ...], here: tuple[Layer, ...]
) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    # A hook above the link layer does not show the frame's header: it is there all the same.
    if before and before[0].name == "ethernet" and here and here[0].name != "ethernet":
        return before[1:], here
    if here and here[0].name == "ethernet" and before and before[0].name != "ethernet":
        return (here[0], *before), here
    return before, here


def _layer(change: Change, old: dict[str, dict[str, str]]) -> dict[str, Any]:
    name = change.layer.name
    return {
        "name": name,
        "kind": change.kind,
        "fields": [
            [key, value, old.get(name, {}).get(key) if key in change.fields else None]
            for key, value in change.layer.fields
        ],
    }


_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<header><h1 id="name">{title}</h1><select id="packets" aria-label="packet"></select>
<span class="facts" id="facts"></span><span id="lost" class="end bad"></span>
<span id="end" class="end" hidden></span></header>
<main>
<figure>{figure}</figure>
<section id="hop" aria-live="polite"></section>
</main>
<nav>
<button id="first" title="first (Home)">|◀</button>
<button id="back" title="back (←)">◀ back</button>
<button id="play" title="play (space)">▶ play</button>
<button id="next" title="next (→)">next ▶</button>
<button id="last" title="last (End)">▶|</button>
<output id="where"></output>
<label><input type="checkbox" id="all"> also steps not taken</label>
<button id="theme" title="dark or light (d)">◐</button>
</nav>
<div id="ladder"></div>
<footer>{legend}</footer>
<script type="application/json" id="trace">{data}</script>
<script>{script}</script>
</body>
</html>
"""
