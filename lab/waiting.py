"""Waiting for a condition with a deadline: the only place of the package that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lab.errors import CheckFailed

T = TypeVar("T")


def eventually(
    probe: Callable[[], T],
    *,
    within_s: float = 5.0,
    every_s: float = 0.005,
    what: str = "condition",
) -> T:
    """Return the first truthy value of ``probe()``.

    Args:
        probe: called at once and then every ``every_s`` seconds.
        within_s: deadline in seconds of monotonic time.
        every_s: pause between two calls, in seconds.
        what: names the condition in the error.

    Raises:
        CheckFailed: the deadline passed; the message carries the last value seen.
    """
    deadline = time.monotonic() + within_s
    while True:
        # asked before the clock: a condition that is true at once is found even after a deadline of
        # zero
        value = probe()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise CheckFailed(
                f"{what} did not come true within {within_s:g} s; last value: {value!r}",
                hint="look at the trace or raise the deadline",
            )
        time.sleep(every_s)


def pause(seconds: float) -> None:
    """Wait between two looks at something that is read by polling."""
    time.sleep(seconds)
