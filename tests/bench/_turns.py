"""Measuring paths in turns: another order each round, told while it lasts, kept if interrupted."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

Measure = Callable[[], float]
TRUSTED_S = 10.0
"""Seconds of parts that are over after which their pace counts as much as what was expected."""
EVERY_S = 5.0
"""Seconds between two lines of progress where no line can be overwritten."""


class Progress:
    """Tells on standard error what is being measured and how long the rest will take.

    A terminal sees one line that changes; a file gets a line when something else is measured,
    and every few seconds.

    Args:
        parts: what will be measured, with the seconds each is expected to take.
        stream: where to tell it.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        parts: Mapping[str, float],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waiting = dict(parts)
        self._stream = stream or sys.stderr
        self._clock = clock
        self._expected = self._finished = self._spent = 0.0
        self._begun = self._last = clock()
        self._about = ""

    def part(self, name: str) -> None:
        """Begin what is called ``name`` in the parts; the one before is over."""
        now = self._clock()
        if self._expected:
            self._finished += self._expected
            self._spent += now - self._begun
        self._begun, self._expected = now, self._waiting.pop(name, 0.0)
        self.tell(name)

    def left_s(self, of_this_s: float | None = None) -> float:
        """Return how many seconds are left, at the pace seen so far.

        Args:
            of_this_s: seconds that this part still takes, if that is known better.
        """
        # a short first part says little about the rest
        pace = (self._spent + TRUSTED_S) / (self._finished + TRUSTED_S)
        if of_this_s is None:
            of_this_s = max(pace * self._expected - (self._clock() - self._begun), 0.0)
        return of_this_s + pace * sum(self._waiting.values())

    def tell(self, what: str, of_this_s: float | None = None) -> None:
        """Tell what is being measured.

        Args:
            what: in words; what follows a comma may change without a line of its own in a file.
            of_this_s: seconds that this part still takes, if that is known.
        """
        line = f"{what}, about {duration(self.left_s(of_this_s))} left"
        about, now = what.partition(",")[0], self._clock()
        if self._stream.isatty():
            self._stream.write(f"\r{line}\x1b[K")
        elif about == self._about and now - self._last < EVERY_S:
            return
        else:
            self._stream.write(line + "\n")
        self._about, self._last = about, now
        self._stream.flush()

    def clear(self) -> None:
        """Leave a terminal's line free for what is printed next."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def duration(seconds: float) -> str:
    """Return seconds in words, as exact as a guess deserves."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min"


def in_turns(
    paths: Mapping[str, Measure],
    rounds: int,
    found: dict[str, list[float]],
    *,
    title: str = "",
    progress: Progress | None = None,
) -> None:
    """Measure every path once a round, in another order each time, after a round for nothing.

    What the machine does meanwhile, and what a measurement leaves behind for the next one, hits
    each path alike.

    Args:
        paths: what to measure.
        rounds: that count.
        found: gets the values of each path; only whole rounds, however this ends.
        title: of the whole, for the progress.
        progress: told before each measurement.
    """
    if progress:
        progress.part(title)
    for name in paths:
        found[name] = []
    order = random.Random(1)
    begun, done, total = time.monotonic(), 0, (rounds + 1) * len(paths)
    for number in range(rounds + 1):
        values: dict[str, float] = {}
        for name in order.sample(list(paths), len(paths)):
            if progress:
                each = (time.monotonic() - begun) / done if done else None
                left = None if each is None else each * (total - done)
                shown = f"round {number} of {rounds}" if number else "warming up"
                progress.tell(f"{title}, {shown}: {name}", left)
            values[name] = paths[name]()
            done += 1
        if number:
            for name, value in values.items():
                found[name].append(value)
