"""The trace as data: what survives JSON, what is selected, what is refused."""

import json

import pytest

from lab.errors import InputError
from lab.trace import Evidence, Hop, LookUp, PacketId, Side, Step, Trace

PACKET = PacketId(
    cookie="00000000000000ab", protocol="udp", source="10.0.1.10", destination="10.0.2.10",
    source_port=40000, destination_port=5000,
)  # fmt: skip
SENT = Hop(
    step=None, hook="dev_xmit", side=Side.SEND, evidence=Evidence.TRACEPOINT, node="alpha",
    namespace="client", device="eth0", ns=1_000, us=0.0, object="prog 3", before=b"\x01\x02",
)  # fmt: skip
DROP = Hop(
    step=Step.TC_INGRESS, hook="from-container", evidence=Evidence.PROGRAM, node="alpha",
    namespace="alpha", device="lxcclient", verdict="drop", drop_reason="Policy denied", ns=2_000,
    us=1.0, object="prog 4", mark=0, lookups=(LookUp(map="cilium_policy", key="id 256"),),
)  # fmt: skip
SKIPPED = Hop(
    step=Step.IP_RCV, hook="ip_rcv", evidence=Evidence.NOT_TAKEN, node="alpha",
    namespace="alpha", device="lxcclient", reason="dropped at step 8",
)  # fmt: skip
TRACE = Trace(packet=PACKET, hops=(SENT, DROP, SKIPPED), lost=2, topology="two-nodes")


def test_json_round_trip_keeps_every_field() -> None:
    assert Trace.from_json(TRACE.to_json()) == TRACE


def test_json_has_the_documented_names() -> None:
    value = json.loads(TRACE.to_json())
    assert {"packet", "lost", "hops"} <= value.keys()
    assert {
        "step", "hook", "node", "device", "evidence", "reason", "verdict", "drop_reason", "mark",
        "identity", "ns",
    } <= value["hops"][0].keys()  # fmt: skip
    assert (value["hops"][1]["step"], value["hops"][0]["step"]) == (8, None)


REFUSED = {
    "not JSON: position given": ("{", "line 1"),
    "another thing": ("[]", "not a trace"),
    "a schema of the future": (TRACE.to_json().replace('"schema": 1', '"schema": 9'), "schema 9"),
    "a step that does not exist": (TRACE.to_json().replace('"step": 8', '"step": 20'), "20"),
    "an unknown grade": (TRACE.to_json().replace('"program"', '"rumour"', 2), "not a trace"),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_is_no_trace_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        Trace.from_json(text)
    assert refused.value.hint


def test_steps_are_the_nineteen_in_order() -> None:
    assert [step.number for step in Step] == list(range(1, 20))
    assert Step.NAPI_POLL < Step.DATA_READY


def test_grades_are_ranked_as_documented() -> None:
    assert [str(grade) for grade in sorted(Evidence, key=lambda grade: grade.rank)] == [
        "probe", "tracepoint", "stack", "program", "counter", "implied", "not-taken",
    ]  # fmt: skip


def test_drops_and_steps_leave_out_what_was_not_taken() -> None:
    assert TRACE.drops == (DROP,)
    assert TRACE.steps() == (Step.TC_INGRESS,)
    assert not TRACE.delivered


def test_passages_group_by_place_and_side() -> None:
    first, second = TRACE.passages()
    assert (first.place[1], first.side, second.place[2]) == ("client", Side.SEND, "lxcclient")
    assert second.step(Step.TC_INGRESS) is DROP
    assert second.step(Step.DATA_READY) is None


def test_at_selects_by_place() -> None:
    assert TRACE.at("alpha", device="lxcclient") == (DROP, SKIPPED)
    assert TRACE.at("beta") == ()
