"""Values as pictures in a notebook: topologies, traces, plans, comparisons, figures.

``show(x)`` displays a value in the richest form a notebook keeps when it is stored or exported:
SVG and HTML without scripts from elsewhere, and plain text beside them. Traces and topologies
themselves stay plain data; importing this module teaches the notebook how to display them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html import escape
from typing import Any

from lab.errors import InputError
from lab.model import Topology
from lab.plan.steps import Step
from lab.report.diff import diff_html, diff_text
from lab.report.html import page
from lab.report.ladder import ladder_text
from lab.report.svg import topology_svg, trace_svg, ways_svg
from lab.report.topology import picture_text
from lab.runtime import Lab
from lab.runtime.live import open_lab
from lab.trace import Trace

__all__ = [
    "Drawing",
    "as_drawing",
    "compare",
    "judge",
    "ladder",
    "open_lab",
    "play",
    "register",
    "show",
]

_LADDER_CSS = 'style="font:13px/1.35 monospace;overflow-x:auto;white-space:pre"'


class Drawing:
    """Something a notebook can display, as HTML and as text.

    Attributes:
        html: one element, self-contained.
        text: the same for a terminal.
    """

    def __init__(self, html: str, text: str) -> None:
        self.html = html
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def as_drawing(value: object, topology: Topology | None = None) -> Drawing:
    """Return the picture of a value.

    Args:
        value: a topology, a running lab, a trace, a matplotlib figure, or a plan's steps.
        topology: of a trace, to draw the pods that the packet did not meet.

    Raises:
        InputError: there is no picture of such a value.
    """
    if isinstance(value, Lab):
        value = value.topology
    if isinstance(value, Topology):
        return Drawing(topology_svg(value), picture_text(value))
    if isinstance(value, Trace):
        return Drawing(trace_svg(value, topology), ladder_text(value))
    if hasattr(value, "savefig"):
        return _figure(value)
    if isinstance(value, tuple | list) and value and all(isinstance(one, Step) for one in value):
        text = "\n".join(line for step in value for line in step.commands())
        return Drawing(f"<pre {_LADDER_CSS}>{escape(text)}</pre>", text)
    raise InputError(
        f"there is no picture of a {type(value).__name__}",
        hint="show a topology, a lab, a trace, a figure or a plan",
    )


def _figure(figure: Any) -> Drawing:  # noqa: ANN401 (a matplotlib figure, imported by its maker)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=96)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Drawing(f'<img alt="figure" src="data:image/png;base64,{data}">', repr(figure))


def show(value: object, topology: Topology | None = None) -> None:
    """Display a value in the notebook (outside of one: print its text form).

    Raises:
        InputError: there is no picture of such a value.
    """
    from IPython.display import display

    display(as_drawing(value, topology))


def ladder(trace: Trace) -> Drawing:
    """Return the 19-step ladder of a trace, as it looks in the terminal."""
    text = ladder_text(trace)
    return Drawing(f"<pre {_LADDER_CSS}>{escape(text)}</pre>", text)


def play(trace: Trace, topology: Topology | None = None, *, height_px: int = 720) -> Drawing:
    """Return the page that plays a trace, inside a frame of the notebook."""
    # srcdoc is an attribute: the page's own quotes would end it
    document = escape(page(trace, topology), quote=True)
    frame = (
        f'<iframe style="width:100%;border:0" height="{height_px}" srcdoc="{document}"></iframe>'
    )
    return Drawing(frame, ladder_text(trace))


def judge(*claims: tuple[str, object, object]) -> Drawing:
    """Return which predictions came true.

    Args:
        claims: (question, what was predicted, what was observed); a prediction of None or ...
            is one that was not made yet. Texts are compared without regard to case.
    """
    lines = [_judged(*claim) for claim in claims]
    right = sum(line.startswith("✓") for line in lines)
    lines.append(f"{right} of {len(claims)} predictions came true")
    text = "\n".join(lines)
    return Drawing(f'<pre style="font:15px/1.6 monospace">{escape(text)}</pre>', text)


def _judged(question: str, predicted: object, observed: object) -> str:
    if predicted is None or predicted is ...:
        return f"· {question} no prediction yet"
    if _plain(predicted) == _plain(observed):
        return f"✓ {question} {observed}"
    return f"✗ {question} you said {predicted}, observed: {observed}"


def _plain(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def compare(
    left: Trace,
    right: Trace,
    topology: Topology | None = None,
    *,
    names: tuple[str, str] = ("left", "right"),
) -> Drawing:
    """Return two traces side by side: both ways in one drawing, then line by line."""
    html = ways_svg(left, right, topology, names=names) + diff_html(left, right, names=names)
    return Drawing(html, diff_text(left, right, names=names).plain)


def register() -> bool:
    """Teach the running notebook to display topologies, labs and traces; False outside of one."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        return False
    formatter = shell.display_formatter.formatters["text/html"]
    to_html: Callable[[object], str] = lambda value: as_drawing(value).html  # noqa: E731
    for kind in (Topology, Lab, Trace):
        formatter.for_type(kind, to_html)
    return True


register()
