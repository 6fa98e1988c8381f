"""Reasons for steps not taken, and steps that are only implied: none without its test."""

import ast
from pathlib import Path

import pytest

from lab.observe.absent import HOOK_OF_STEP, IMPLIED, Untold, Why
from lab.trace import Step

LIVE = Path(__file__).parents[2] / "live"
SECOND_KERNEL = LIVE.parent / "vm" / "test_ipsec.py"
FLIPPED = (
    "test_tracer_steps.py", "test_identity.py", "test_identity_udp.py", "test_identity_xdp.py",
)  # fmt: skip


def named(path: Path) -> set[str]:
    """Names of the reasons that a test file speaks of."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Why"
    }


@pytest.mark.parametrize("why", Why, ids=[why.name for why in Why])
def test_every_reason_has_a_test_that_turns_its_cause(why):
    files = [*(LIVE / name for name in FLIPPED), SECOND_KERNEL]
    tested = set().union(*map(named, files))
    assert why.name in tested, "add a test that turns this cause and sees the step taken"


def test_a_reason_is_known_by_its_words_whatever_the_device():
    said = Why.NO_TAP.format(device="lxcserver")
    assert [why for why in Why if why.told(said)] == [Why.NO_TAP]


def test_two_reasons_are_never_the_same_words():
    filled = [
        why.format(device="d", place="p", protocol="UDP", poll="x", packet=1)
        for why in (*Why, *Untold)
    ]
    assert len(set(filled)) == len(filled)


MAY_BE_IMPLIED = {
    Step.XDP_DRIVER, Step.GENERIC_XDP, Step.CHECK_TAPS, Step.TC_INGRESS, Step.NETFILTER_INGRESS,
    Step.IP_RCV, Step.NETFILTER_PREROUTING, Step.IP_RCV_FINISH, Step.IP_LOCAL_DELIVER,
    Step.L4_RECEIVE, Step.XFRM_POLICY_L4,
}  # fmt: skip


def test_only_these_steps_may_be_implied_and_each_says_why():
    """The others always have better evidence: a line of theirs that is implied is a defect."""
    assert set(IMPLIED) == MAY_BE_IMPLIED
    assert all(IMPLIED.values())
    assert set(HOOK_OF_STEP) == set(Step)
