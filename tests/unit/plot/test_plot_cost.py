"""Slopes, goals, and that figures are drawn at all."""

import random
from math import log

import pytest

from lab.errors import InputError
from lab.plot.cost import Bar, Series, interval, write_growth, write_ratios

SIZES = (1000, 2000, 4000)
SLOPES = {
    "a level line": (((5.0, 5.0, 5.0), (5.0, 5.0, 5.0)), 0.0),
    "ten nanoseconds for each thousand": (((5.01, 5.02, 5.04), (5.01, 5.02, 5.04)), 10.0),
    "rounds that differ, each of them level": (((5.0, 5.0, 5.0), (9.0, 9.0, 9.0)), 0.0),
}


@pytest.mark.parametrize(("rounds", "expected"), SLOPES.values(), ids=SLOPES.keys())
def test_slope(rounds, expected):
    assert Series("x", SIZES, rounds).slope.ns_per_1000 == pytest.approx(expected, abs=1e-6)


INTERVALS = {
    "one value is all there is": ([3.0], (3.0, 3.0)),
    "of five, least and most": ([5.0, 1.0, 4.0, 2.0, 3.0], (1.0, 5.0)),
    # 2 / 2**8 lies outside of least and most, 2 * (1 + 8) / 2**8 would be 7 of 100
    "of eight, least and most": ([*map(float, range(8))], (0.0, 7.0)),
    # 2 * (1 + 9) / 2**9 = 3.9 of 100
    "of nine, one left out at each end": ([*map(float, range(9))], (1.0, 7.0)),
    "of fourteen, two left out": ([*map(float, range(14))], (2.0, 11.0)),
    "a spoilt round": ([1.0] * 8 + [900.0], (1.0, 1.0)),
}


@pytest.mark.parametrize(("values", "expected"), INTERVALS.values(), ids=INTERVALS.keys())
def test_interval(values, expected):
    assert interval(values) == expected


def test_the_interval_covers_the_median_as_often_as_it_promises():
    draw = random.Random(7)
    for count in (6, 9, 14, 28):
        found = [interval([draw.expovariate(1.0) for _ in range(count)]) for _ in range(3000)]
        covered = sum(low <= log(2) <= high for low, high in found)
        assert covered / len(found) > 0.94, count


NOISE = ((5.0, 5.3, 5.1), (5.2, 5.0, 5.1), (5.1, 5.1, 5.2))
STEADY = ((5.0, 6.0, 8.1), (5.1, 6.0, 8.0), (5.0, 6.1, 8.0))
TOLD = {
    "scatter about a level line": (NOISE * 3, "does not grow"),
    "a steady growth": (STEADY * 3, "grows"),
    "one spoilt round among level ones": (((5.0, 5.0, 5.0),) * 8 + ((5.0, 7.0, 9.0),), "does not"),
    "less and less": (tuple(values[::-1] for values in STEADY * 3), "does not grow"),
    "few rounds": (STEADY, "grows (few rounds)"),
}


@pytest.mark.parametrize(("rounds", "words"), TOLD.values(), ids=TOLD.keys())
def test_slope_in_words(rounds, words):
    assert words in str(Series("x", SIZES, rounds).slope)
    assert ("does not" in words) == ("does not" in Series("x", SIZES, rounds).slope.verdict)


def test_what_the_largest_size_costs_more_shows_a_cost_that_rises_early_and_stays():
    series = Series("x", SIZES, ((5.0, 6.0, 6.0), (5.1, 6.1, 6.0), (5.0, 6.0, 6.1)))
    assert series.change_us == pytest.approx((1.0, 0.9, 1.1))


VERDICTS = {
    "at most, met": (Bar("x", (1.0, 1.1, 1.05) * 3, 1.1), "goal ≤ 1.10: met"),
    "at most, missed": (Bar("x", (1.2, 1.3, 1.25) * 3, 1.1), "goal ≤ 1.10: missed"),
    "at least, met": (Bar("x", (0.95,) * 9, 0.9, at_least=True), "goal ≥ 0.90: met"),
    "at least, missed": (Bar("x", (0.85,) * 9, 0.9, at_least=True), "goal ≥ 0.90: missed"),
    "at most, beyond it by less than rounds differ": (
        Bar("x", (1.0, 1.12, 1.3) * 3, 1.1),
        "goal ≤ 1.10: missed, not surely",
    ),
    "at least, beyond it by less than rounds differ": (
        Bar("x", (0.8, 0.91, 1.0) * 3, 0.9, at_least=True),
        "goal ≥ 0.90: met, not surely",
    ),
    "one round": (Bar("x", (1.2,), 1.1), "goal ≤ 1.10: missed (few rounds)"),
    "nothing asked": (Bar("x", (1.0,)), ""),
}


@pytest.mark.parametrize(("bar", "words"), VERDICTS.values(), ids=VERDICTS.keys())
def test_verdict(bar, words):
    assert bar.verdict == words


def test_figures_are_written_as_png_and_svg(tmp_path):
    level = Series("ours", SIZES, ((5.0, 5.1, 5.0),))
    steep = Series("rules", SIZES, ((50.0, 100.0, 200.0),))
    write_growth((level, steep), "Growth", "entries", tmp_path / "growth")
    write_ratios((Bar("first", (1.0,)), Bar("second", (1.2,), 1.1)), "Paths", tmp_path / "paths")
    for name in ("growth", "paths"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (tmp_path / f"{name}.svg").read_text()


def test_nothing_to_draw_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="nothing was measured"):
        write_growth((), "Growth", "entries", tmp_path / "growth")
    with pytest.raises(InputError, match="nothing was measured"):
        write_ratios((), "Paths", tmp_path / "paths")
