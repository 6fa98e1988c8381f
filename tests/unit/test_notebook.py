"""What a notebook shows of each kind of value, in HTML and beside it in text."""

import pytest
from traces import DELIVERED, REFUSED

from lab.errors import InputError
from lab.notebook import as_drawing, compare, judge, ladder, play
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


JUDGED = {
    "right": (("VNI?", 256, 256), "✓ VNI? 256"),
    "right, spelt otherwise": (("where?", " Beta", "beta"), "✓ where? beta"),
    "wrong: both values are named": (("VNI?", 1, 256), "✗ VNI? you said 1, observed: 256"),
    "not predicted": (("VNI?", ..., 256), "· VNI? no prediction yet"),
    "nothing is not zero": (("drops?", None, 0), "· drops? no prediction yet"),
}


@pytest.mark.parametrize(("claim", "says"), JUDGED.values(), ids=JUDGED.keys())
def test_a_prediction_is_judged(claim, says):
    assert judge(claim).text.splitlines()[0] == says


def test_predictions_that_came_true_are_counted():
    assert judge(("a", 1, 1), ("b", 1, 2)).text.splitlines()[-1].startswith("1 of 2")
