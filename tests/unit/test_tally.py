"""Runs of one scenario counted: all held, all the same, or what was not."""

from typing import Any

import pytest

from lab.cli.run import _print_sum, exit_code
from lab.scenarios import Check, Report
from lab.scenarios.tally import Tally, fingerprint


def report(
    *,
    holds: bool = True,
    outcome=(("order", (1, 2)),),
    error: str = "",
    name="x",
    unsupported: bool = False,
) -> Report:
    return Report(
        scenario=name,
        claim="A claim.",
        checks=(Check(statement="it holds", holds=holds, detail="seen"),),
        seconds=1.0,
        error=error,
        unsupported=unsupported,
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


NEED: dict[str, Any] = {"error": "this kernel lacks netem", "unsupported": True}
CODES = {
    "all held": ([report()], 0),
    "one did not hold": ([report(), report(holds=False)], 1),
    "the kernel cannot do something": ([report(), report(**NEED)], 3),
    "one fell, another needs more": ([report(holds=False), report(**NEED)], 1),
    "a sentence fell before the need was met": ([report(holds=False, **NEED)], 1),
}


@pytest.mark.parametrize(("reports", "code"), CODES.values(), ids=CODES.keys())
def test_the_exit_code_tells(reports, code) -> None:
    assert exit_code(reports) == code


def test_a_need_is_not_told_as_a_failure(capsys) -> None:
    _print_sum([Tally((report(),)), Tally((report(**NEED),))], 1)
    assert capsys.readouterr().out.startswith("1 passed, 0 failed, 1 not shown to the end")
