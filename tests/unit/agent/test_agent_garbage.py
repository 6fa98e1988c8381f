"""When garbage is collected next."""

import pytest

from lab.agent.garbage import Sweep, next_interval_s

CASES = {
    "much was found: sooner, by the share that was deleted": (300, Sweep(100, 50), 150),
    "nearly all was garbage: not more often than every ten seconds": (12, Sweep(100, 99), 10),
    "little was found: half as long again": (300, Sweep(100, 1), 450),
    "nothing there at all: half as long again": (300, Sweep(0, 0), 450),
    "something in between: as before": (300, Sweep(100, 10), 300),
    "never more than twelve hours": (40_000, Sweep(100, 0), 43_200),
}


@pytest.mark.parametrize(("interval", "sweep", "expected"), CASES.values(), ids=CASES.keys())
def test_interval_follows_what_was_found(interval, sweep, expected):
    assert next_interval_s(interval, sweep) == expected
