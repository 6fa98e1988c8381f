"""Slopes, goals, and that figures are drawn at all."""

import pytest

from lab.errors import InputError
from lab.plot.cost import Bar, Series, write_growth, write_ratios

SIZES = (1000, 2000, 4000)
SLOPES = {
    "a level line": (((5.0, 5.0, 5.0), (5.0, 5.0, 5.0)), 0.0),
    "ten nanoseconds for each thousand": (((5.01, 5.02, 5.04), (5.01, 5.02, 5.04)), 10.0),
    "rounds that differ, each of them level": (((5.0, 5.0, 5.0), (9.0, 9.0, 9.0)), 0.0),
}


@pytest.mark.parametrize(("rounds", "expected"), SLOPES.values(), ids=SLOPES.keys())
def test_slope(rounds, expected):
    assert Series("x", SIZES, rounds).slope.ns_per_1000 == pytest.approx(expected, abs=1e-6)


def test_what_scatters_about_a_level_line_is_no_slope():
    noisy = Series("x", SIZES, ((5.0, 5.3, 5.1), (5.2, 5.0, 5.1), (5.1, 5.1, 5.2)))
    assert noisy.slope.is_zero
    assert noisy.slope.error_ns > 0


def test_a_steady_growth_is_more_than_chance():
    steady = Series("x", SIZES, ((5.0, 6.0, 8.1), (5.1, 6.0, 8.0)))
    assert not steady.slope.is_zero


VERDICTS = {
    "at most, met": (Bar("x", (1.0, 1.1, 1.05), 1.1), "goal ≤ 1.10: met"),
    "at most, missed": (Bar("x", (1.2, 1.3, 1.25), 1.1), "goal ≤ 1.10: missed"),
    "at least, met": (Bar("x", (0.95,), 0.9, at_least=True), "goal ≥ 0.90: met"),
    "at least, missed": (Bar("x", (0.85,), 0.9, at_least=True), "goal ≥ 0.90: missed"),
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
