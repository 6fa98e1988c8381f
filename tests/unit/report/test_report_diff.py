"""Two traces compared: what differs is found and named, times never count."""

from dataclasses import replace

import pytest
from rich.cells import cell_len
from traces import CLIENT, DELIVERED, REFUSED, SERVER, hop, skipped

from lab.report.diff import WIDTH, Kind, diff, diff_html, diff_text, differences
from lab.report.svg import ways_svg
from lab.trace import Step

ROWS = differences(diff(DELIVERED, REFUSED))


def test_a_trace_equals_itself_whatever_the_times():
    later = tuple(replace(one, ns=one.ns + 5, us=None, skb=7) for one in DELIVERED.hops)
    assert differences(diff(DELIVERED, replace(DELIVERED, hops=later))) == ()


def test_the_first_difference_is_the_verdict_that_dropped_one():
    assert (ROWS[0].left.verdict, ROWS[0].right.verdict) == ("redirect", "drop")
    assert ROWS[0].fields[:2] == ("verdict", "drop_reason")


def test_steps_skipped_for_another_reason_are_one_line():
    assert [(row.left.step.number, row.last) for row in ROWS if "reason" in row.fields] == [(9, 19)]


def test_what_only_one_packet_met_is_on_its_side():
    assert {row.kind for row in ROWS[2:]} == {Kind.ONLY_LEFT}
    swapped = differences(diff(REFUSED, DELIVERED))
    assert {row.kind for row in swapped[2:]} == {Kind.ONLY_RIGHT}


def test_a_step_taken_by_one_and_explained_by_the_other_is_a_change():
    left = replace(DELIVERED, hops=(hop(1.0, SERVER, step=Step.GRO_RECEIVE),))
    right = replace(DELIVERED, hops=(skipped(SERVER, Step.GRO_RECEIVE, "no GRO"),))
    assert [(row.kind, row.fields[0]) for row in diff(left, right)] == [(Kind.CHANGED, "evidence")]


FIELDS = {"mark": 7, "identity": 9, "ct_state": "reply", "program": "other"}


@pytest.mark.parametrize("field", FIELDS)
def test_a_differing_field_is_named_with_both_values(field):
    left = replace(DELIVERED, hops=(hop(1.0, CLIENT, hook="dev_xmit"),))
    other = hop(2.0, CLIENT, hook="dev_xmit", **{field: FIELDS[field]})
    row = diff(left, replace(DELIVERED, hops=(other,)))[0]
    assert row.fields == (field,)
    assert field.replace("_", " ") in diff_text(left, replace(DELIVERED, hops=(other,))).plain


def test_the_text_fits_a_hundred_columns_and_counts():
    lines = diff_text(DELIVERED, REFUSED, names=("policy off", "policy on")).plain.splitlines()
    assert max(cell_len(line) for line in lines) <= WIDTH
    assert lines[-1].startswith("2 lines differ")


def test_equal_traces_are_said_to_be_equal():
    assert "the same way" in diff_text(DELIVERED, DELIVERED).plain.splitlines()[-1]


def test_pictures_hold_both_names_and_the_drop():
    text = diff_html(DELIVERED, REFUSED, names=("off", "on"))
    text += ways_svg(DELIVERED, REFUSED, names=("off", "on"))
    assert (">off<br>" in text, "drop, Invalid source ip" in text, "way second" in text) == (
        True,
    ) * 3
