"""Two ladders of one packet: agreement, contradiction, what one alone sees, one ladder of both.

The traces are made by hand; nothing here asks the code under test what a right answer is.
"""

from dataclasses import replace

import pytest

from lab.trace import NO_EVIDENCE, Evidence, Hop, PacketId, Side, Step, Trace, compare, merge

PACKET = PacketId(protocol="udp", source="10.0.1.10", destination="10.0.2.10")
PLACE = {"node": "beta", "namespace": "server", "device": "eth0"}
SOURCES = ("on_dev_queue: prog 1", "on_dev_xmit: prog 2")
THEIRS = ("f_dev_queue: prog 3", "f_netfilter: prog 4")


def seen(step, ns, evidence=Evidence.TRACEPOINT, **rest):
    return Hop(step=step, hook=step.title, evidence=evidence, ns=ns, reason="seen", **PLACE, **rest)


def not_taken(step, reason="no chain"):
    return Hop(
        step=step, hook=step.title, evidence=Evidence.NOT_TAKEN, reason=reason, **PLACE
    )  # fmt: skip


def sent(hook, ns, evidence=Evidence.TRACEPOINT):
    return Hop(
        step=None, hook=hook, evidence=evidence, ns=ns, side=Side.SEND, node="alpha",
        namespace="client", device="eth0",
    )  # fmt: skip


def trace(*hops, sources=SOURCES, lost=0):
    lines = {hop.step: hop for hop in hops if hop.step}
    rest = [lines.get(step, not_taken(step)) for step in Step]
    return Trace(
        packet=PACKET, hops=(*(h for h in hops if not h.step), *rest), sources=sources, lost=lost
    )


OURS = trace(
    sent("dev_queue", 1),
    seen(Step.RECEIVE_SKB, 10),
    seen(Step.IP_ROUTING, 12),
    seen(Step.IP_LOCAL_DELIVER, 12, Evidence.IMPLIED),
)
THEIR = trace(
    sent("dev_queue", 1, Evidence.PROBE),
    seen(Step.RECEIVE_SKB, 9, Evidence.PROBE),
    seen(Step.IP_ROUTING, 11, Evidence.PROBE),
    seen(Step.IP_LOCAL_DELIVER, 13, Evidence.PROBE),
    sources=THEIRS,
)


def without(trace, step, reason="no chain"):
    hops = (not_taken(step, reason) if hop.step is step else hop for hop in trace.hops)
    return replace(trace, hops=tuple(hops))


def test_two_that_tell_the_same_agree_on_every_step_and_hook():
    found = compare(OURS, THEIR)
    assert found.agree
    assert found.agreed == 19 + 1
    assert not found.alone


CONTRADICTIONS = {
    "functions did not see what a tracepoint reported": (
        OURS, without(THEIR, Step.IP_ROUTING), "step 13 ip_routing at server/eth0"
    ),
    "tracepoints explain away what a function saw": (
        without(OURS, Step.IP_ROUTING), THEIR, "step 13 ip_routing at server/eth0"
    ),
    "functions did not see it leave": (
        OURS, replace(THEIR, hops=THEIR.hops[1:]), "dev_queue at client/eth0"
    ),
    "one saw a device that the other did not": (
        OURS, replace(THEIR, hops=THEIR.hops[:1]), "the device at server/eth0"
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs", "where"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys()
)
def test_a_contradiction_is_named_with_its_place(ours, theirs, where):
    found = compare(ours, theirs)
    assert not found.agree
    assert len(found.differences) == 1
    assert where in str(found)


def test_a_step_that_one_cannot_see_is_told_by_the_other_alone():
    blind = without(OURS, Step.IP_ROUTING, f"{NO_EVIDENCE}: nothing reported it")
    found = compare(blind, THEIR)
    assert found.agree
    assert found.alone == ("13 ip_routing at server/eth0 (functions)",)


def test_a_chain_that_tracepoints_have_no_program_for_is_no_contradiction():
    theirs = replace(THEIR, hops=(sent("nf_output", 0, Evidence.PROBE), *THEIR.hops))
    found = compare(OURS, theirs)
    assert found.agree
    assert found.alone == ("nf_output at client/eth0 (functions)",)


def test_nothing_to_compare_is_no_agreement():
    empty = Trace(packet=PACKET, hops=())
    found = compare(empty, empty)
    assert (found.agree, found.as_dict()["verdict"]) == (False, "differ")
    assert str(found) == "the two witnesses have no step or hook in common"


def test_the_better_proof_is_kept_and_the_weaker_still_told():
    merged = merge(OURS, THEIR)
    routing = next(hop for hop in merged.hops if hop.step is Step.IP_ROUTING)
    assert routing.evidence is Evidence.PROBE
    assert "tracepoint: seen" in routing.reason
    assert merged.witnesses is not None
    assert merged.witnesses.agree


def test_an_implied_step_gets_the_time_of_the_function_that_was_entered():
    merged = merge(OURS, THEIR)
    (delivery,) = (hop for hop in merged.hops if hop.step is Step.IP_LOCAL_DELIVER)
    assert (delivery.ns, delivery.evidence) == (13, Evidence.PROBE)
    assert delivery.us == pytest.approx(0.012)


def test_lines_that_functions_alone_have_stand_where_they_belong_in_time():
    theirs = replace(THEIR, hops=(*THEIR.hops[:1], sent("ip_output", 0), *THEIR.hops[1:]))
    merged = merge(OURS, theirs)
    assert [hop.hook for hop in merged.hops if hop.side is Side.SEND] == ["ip_output", "dev_queue"]


def test_a_hook_that_both_have_seen_is_one_line_however_far_apart():
    above = replace(sent("route_output", 1), device="")
    chain = sent("nf_postrouting", 30, Evidence.PROBE)
    ours = trace(above, sent("dev_queue", 90), seen(Step.RECEIVE_SKB, 95))
    theirs = trace(chain, sent("dev_queue", 31, Evidence.PROBE), sources=THEIRS)
    lines = [hop for hop in merge(ours, theirs).taken if hop.hook == "dev_queue"]
    assert [hop.evidence for hop in lines] == [Evidence.PROBE]


def test_losses_of_either_count():
    assert merge(OURS, replace(THEIR, lost=2)).lost == 2


def test_the_comparison_survives_json():
    merged = merge(OURS, without(THEIR, Step.IP_ROUTING))
    assert merged.as_dict()["witnesses"]["verdict"] == "differ"
    assert Trace.from_json(merged.to_json()).witnesses == merged.witnesses
