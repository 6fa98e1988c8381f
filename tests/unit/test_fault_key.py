"""An answer key accepts the line it describes and no other."""

from dataclasses import replace

import pytest

from lab.scenarios.faults import Ends
from lab.trace import Evidence, Hop, Step

DROP = Hop(
    step=Step.TC_INGRESS, hook="from-container", program="cil_from_container", namespace="alpha",
    evidence=Evidence.PROGRAM, verdict="drop", drop_reason="POLICY",
)  # fmt: skip
KEY = Ends(place="alpha", hook="from-container", step=Step.TC_INGRESS, reason="POLICY")
CASES = {
    "the same by hook": (KEY, True),
    "the same by program": (replace(KEY, hook="cil_from_container"), True),
    "any reason": (replace(KEY, reason=""), True),
    "another place": (replace(KEY, place="beta"), False),
    "another hook": (replace(KEY, hook="from-host"), False),
    "another step": (replace(KEY, step=Step.IP_RCV), False),
    "no step": (replace(KEY, step=None), False),
    "another reason": (replace(KEY, reason="POLICY_DENY"), False),
}


@pytest.mark.parametrize(("key", "right"), CASES.values(), ids=CASES.keys())
def test_a_key_fits_only_its_own_line(key: Ends, right: bool) -> None:
    assert key.is_at(DROP) is right
