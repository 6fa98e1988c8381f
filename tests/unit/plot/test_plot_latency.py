"""Latency per hop: durations add up, several packets give a spread, the error is stated."""

from dataclasses import replace

import pytest
from traces import DELIVERED, REFUSED

from lab.errors import InputError
from lab.plot.latency import alike, latency, stretches, watching_cost_us, write_latency


def scaled(trace, factor):
    hops = (h if h.us is None else replace(h, us=h.us * factor) for h in trace.hops)
    return replace(trace, hops=tuple(hops))


@pytest.mark.parametrize("by", ["place", "hop"])
def test_the_stretches_add_up_to_the_whole_way(by):
    found = stretches(DELIVERED, by=by)
    whole = max(h.us for h in DELIVERED.taken) - min(h.us for h in DELIVERED.taken)
    assert sum(one.us for one in found) == pytest.approx(whole)


def test_places_are_named_in_the_order_of_the_way():
    labels = [one.label for one in stretches(DELIVERED)]
    assert labels[:2] == ["client eth0 sends", "alpha lxcclient receives"]
    assert labels[-1] == "server eth0 receives"


def test_several_packets_give_median_and_extremes():
    first = stretches([scaled(DELIVERED, factor) for factor in (1, 2, 10)])[0]
    assert (first.us, first.low_us, first.high_us) == pytest.approx((52.2, 26.1, 261.0))
    assert first.packets == 3


REFUSALS = {
    "no packet": ([], "no packet"),
    "packets that went different ways": ([DELIVERED, REFUSED], "different ways"),
    "a trace without sights": (replace(DELIVERED, hops=()), "no packet"),
}


@pytest.mark.parametrize(("traces", "says"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_cannot_be_measured_is_refused(traces, says):
    with pytest.raises(InputError, match=says) as refused:
        stretches(traces)
    assert refused.value.hint


def test_the_cost_of_watching_is_spread_over_the_sights():
    assert watching_cost_us([60.0, 50.0, 55.0], [35.0, 30.0, 40.0], 40) == pytest.approx(0.5)


def test_watching_never_costs_less_than_nothing():
    assert watching_cost_us([30.0], [31.0], 10) == 0.0


STATED = {
    "not measured": (DELIVERED, None, "was not measured"),
    "measured": (DELIVERED, 0.4, "0.40 µs per sight (measured)"),
    "several packets": ([DELIVERED, scaled(DELIVERED, 2)], None, "median of 2 packets"),
}


@pytest.mark.parametrize(("traces", "cost_us", "says"), STATED.values(), ids=STATED.keys())
def test_the_figure_states_its_error(traces, cost_us, says):
    axes = latency(traces, cost_us=cost_us).axes[0]
    assert says in axes.get_xlabel()
    assert len(axes.get_yticklabels()) == len(stretches(traces))


def test_packets_of_the_commonest_way_are_picked():
    assert alike([REFUSED, DELIVERED, scaled(DELIVERED, 2)]) == (DELIVERED, scaled(DELIVERED, 2))
    assert alike([]) == ()


@pytest.mark.parametrize(("name", "begins"), [("t.png", b"\x89PNG"), ("t.svg", b"<?xml")])
def test_the_figure_goes_into_a_file(tmp_path, name, begins):
    assert write_latency(DELIVERED, tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize("name", ["t.mp3", "no/such/folder.png"])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="cannot write"):
        write_latency(DELIVERED, tmp_path / name)
