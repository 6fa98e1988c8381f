"""Several runs of one scenario: how many held, and whether they all came out the same."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from lab.scenarios.run import Report

_DIGITS = 8


def fingerprint(report: Report) -> str:
    """Return a short name of everything a run has to repeat exactly; times are no part of it."""
    return sha256(repr(report.outcome).encode()).hexdigest()[:_DIGITS]


@dataclass(frozen=True, slots=True)
class Tally:
    """The runs of one scenario, at least one.

    Attributes:
        reports: one per run, in order.
    """

    reports: tuple[Report, ...]

    @property
    def scenario(self) -> str:
        """Its name."""
        return self.reports[0].scenario

    @property
    def held(self) -> int:
        """In how many runs every sentence held."""
        return sum(report.passed for report in self.reports)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The fingerprints of the distinct outcomes, in the order they came."""
        return tuple(dict.fromkeys(map(fingerprint, self.reports)))

    @property
    def steady(self) -> bool:
        """Whether every run held and all came out the same."""
        return self.held == len(self.reports) and len(self.outcomes) == 1

    def differences(self) -> tuple[str, ...]:
        """Say what came out differently from the first run: by name, with the number of runs."""
        first = dict(self.reports[0].outcome)
        counts: dict[str, int] = {}
        for report in self.reports[1:]:
            now = dict(report.outcome)
            for name in dict.fromkeys([*first, *now]):
                counts[name] = counts.get(name, 0) + (first.get(name) != now.get(name))
        return tuple(
            f"{name}: not as in the first run in {count} of {len(self.reports) - 1}"
            for name, count in counts.items()
            if count
        )

    def broken(self) -> tuple[str, ...]:
        """Say which sentences did not hold, each once, and what ended runs early."""
        said: dict[str, None] = {}
        for report in self.reports:
            for check in report.checks:
                if not check.holds:
                    said[check.statement + (f" [{check.detail}]" if check.detail else "")] = None
            if report.error:
                said[report.error] = None
        return tuple(said)
