"""What a notebook shows of each kind of value, in HTML and beside it in text."""

import pytest
from traces import DELIVERED, REFUSED

from lab.errors import InputError
from lab.notebook import as_drawing, compare, ladder, play
from lab.plan import plan
from lab.plot.latency import latency
from topologies.two_nodes import topology

VALUES = {
    "topology": (topology, "<svg", "client  10.0.1.10"),
    "trace": (DELIVERED, "<svg", "19 sk_data_ready"),
    "plan": (plan(topology), "<pre", "ip netns add alpha"),
    "figure": (latency(DELIVERED), "data:image/png", "Figure"),
}


@pytest.mark.parametrize(("value", "html", "text"), VALUES.values(), ids=VALUES.keys())
def test_a_value_is_shown_as_html_and_as_text(value, html, text):
    bundle = as_drawing(value)._repr_mimebundle_()
    assert (html in bundle["text/html"], text in bundle["text/plain"]) == (True, True)


def test_a_value_without_picture_is_refused():
    with pytest.raises(InputError, match="no picture of a int"):
        as_drawing(7)


def test_ladder_page_and_comparison_are_drawings_too():
    assert "socket_receive_queue" in ladder(DELIVERED).html
    assert play(DELIVERED, topology).html.startswith("<iframe")
    assert "≠" in compare(DELIVERED, REFUSED, topology, names=("a", "b")).text
