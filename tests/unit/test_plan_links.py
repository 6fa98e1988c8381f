"""What a link between nodes may be asked for: a rate; anything else is refused, not left out."""

import pytest

from lab import Link, Node, Topology
from lab.errors import UnsupportedError
from lab.plan import plan
from lab.plan.steps import LimitRate


def joined(**behaviour: float) -> Topology:
    nodes = (Node("alpha"), Node("beta"))
    return Topology(name="t", nodes=nodes, links=(Link("alpha", "beta", **behaviour),))


def test_a_rate_limits_both_uplinks() -> None:
    limits = [step for step in plan(joined(rate_mbit=10)) if isinstance(step, LimitRate)]
    assert [(step.where, step.device, step.rate_mbit) for step in limits] == [
        ("alpha", "eth0", 10),
        ("beta", "eth0", 10),
    ]


@pytest.mark.parametrize("behaviour", [{"delay_ms": 5}, {"loss_pct": 1}], ids=["delay", "loss"])
def test_what_no_engine_can_do_is_refused(behaviour: dict[str, float]) -> None:
    with pytest.raises(UnsupportedError, match="link alpha-beta: .* only the rate"):
        plan(joined(**behaviour))


def test_zero_is_what_a_wire_has_anyway() -> None:
    assert plan(joined(delay_ms=0, loss_pct=0)) == plan(joined())
