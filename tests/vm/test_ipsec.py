"""Debian's kernel has ESP: one trace goes from the sender's socket across encryption and back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab import Lab, Options
from lab.observe.absent import Why
from lab.observe.capture import write_pcapng
from lab.scenarios import load_scenarios
from lab.scenarios.ipsec import pods, protected
from lab.trace import Evidence, Step, Trace, Witness
from tests.live.following import acquainted
from topologies.two_nodes import topology

# the datapath's programs know no ESP: the plain kernel routes it
PLAIN = replace(topology, options=Options(datapath=False, endpoint_routes=True, routing="native"))
LESSONS = ["scenarios/ipsec.py", "scenarios/faults/ipsec_states.py"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with acquainted(PLAIN) as lab:
        yield lab


def test_every_sentence_about_esp_and_its_faults_holds() -> None:
    for lesson in load_scenarios(LESSONS):
        report = lesson.run()
        assert not report.error, lesson.name
        assert report.checks
        assert [check for check in report.checks if not check.holds] == [], lesson.name


def the(trace: Trace, step: Step, reason: Why) -> bool:
    """Whether the server says of a step that it was not taken, for this reason."""
    lines = [hop for hop in trace.at(namespace="server") if hop.step is step and not hop.taken]
    return any(reason.told(hop.reason) for hop in lines)


def test_both_witnesses_see_the_packet_delivered_twice_with_a_reason_for_each_step(
    lab: Lab, tmp_path: Path
) -> None:
    clear = lab.follow("client", "server").packets[0]
    with protected(lab, pods(lab), "transport"):
        trace = lab.follow("client", "server", witness=Witness.BOTH).packets[0]
    assert trace.delivered
    assert not trace.lost
    assert trace.witnesses
    assert trace.witnesses.agree, str(trace.witnesses)
    told = [hop for hop in trace.taken if hop.step is Step.IP_LOCAL_DELIVER]
    assert [(hop.namespace, hop.evidence) for hop in told] == [("server", Evidence.PROBE)] * 2
    assert the(trace, Step.XFRM_POLICY, Why.CHECKED_INSIDE)
    assert not the(clear, Step.XFRM_POLICY, Why.CHECKED_INSIDE)
    assert the(trace, Step.IP_ROUTING, Why.REINJECTED)
    assert not the(clear, Step.IP_ROUTING, Why.REINJECTED)
    # the capture holds it as it was, the JSON says what it was
    assert Trace.from_json(trace.to_json()) == trace
    path = tmp_path / "esp.pcapng"
    write_pcapng(trace, path)
    hidden = [hop.before for hop in trace.taken if hop.namespace == "underlay" and hop.before]
    assert hidden
    assert all(data in path.read_bytes() for data in hidden)
