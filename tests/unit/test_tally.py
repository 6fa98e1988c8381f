"""Runs of one scenario counted: all held, all the same, or what was not."""

import pytest

from lab.cli.run import exit_code
from lab.scenarios import Check, Report
from lab.scenarios.tally import Tally, fingerprint


def report(
    *, holds: bool = True, outcome=(("order", (1, 2)),), error: str = "", name="x"
) -> Report:
    return Report(
        scenario=name,
        claim="A claim.",
        checks=(Check(statement="it holds", holds=holds, detail="seen"),),
        seconds=1.0,
        error=error,
        outcome=outcome,
    )


OTHER = (("order", (2, 1)),)
STEADY = {
    "all held and came out the same": ([report(), report()], True),
    "one did not hold": ([report(), report(holds=False)], False),
    "all held, but not the same": ([report(), report(outcome=OTHER)], False),
    "one ended early": ([report(), report(error="no wire")], False),
    "one run": ([report()], True),
}


@pytest.mark.parametrize(("reports", "steady"), STEADY.values(), ids=STEADY.keys())
def test_runs_are_steady_if(reports, steady) -> None:
    assert Tally(tuple(reports)).steady is steady


def test_what_differs_is_named_with_the_number_of_runs() -> None:
    tally = Tally((report(), report(outcome=OTHER), report(), report(outcome=())))
    assert tally.differences() == ("order: not as in the first run in 2 of 3",)
    assert len(tally.outcomes) == 3


def test_what_did_not_hold_is_said_once() -> None:
    tally = Tally((report(holds=False), report(holds=False), report(error="no wire")))
    assert tally.broken() == ("it holds [seen]", "no wire")


def test_a_fingerprint_depends_on_the_outcome_alone() -> None:
    assert fingerprint(report()) == fingerprint(report(holds=False))
    assert fingerprint(report()) != fingerprint(report(outcome=OTHER))


def test_different_outcomes_alone_are_no_failed_run() -> None:
    assert exit_code([report(), report(outcome=OTHER)]) == 0
