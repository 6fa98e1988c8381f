"""Statements about a trace: each holds for one that fits, and fails for one that does not."""

from dataclasses import replace

import pytest
from traces import frame, vxlan

from lab.errors import CheckFailed, InputError
from lab.trace import Evidence, Hop, PacketId, Side, Step, Trace

PACKET = PacketId(protocol="udp", source="10.0.1.10", destination="10.96.0.1")


def ip(destination: bytes) -> bytes:
    return bytes(12) + b"\x0a\0\1\x0a" + destination


SENT = Hop(
    step=None, hook="dev_xmit", side=Side.SEND, evidence=Evidence.TRACEPOINT, node="alpha",
    namespace="client", device="eth0", ns=1, us=0.0, object="prog 1", link_layer="ip",
    before=ip(b"\x0a\x60\0\1"),
)  # fmt: skip
HOOK = Hop(
    step=Step.TC_INGRESS, hook="from-container", evidence=Evidence.PROGRAM, node="alpha",
    namespace="alpha", device="lxcclient", program="cil_from_container", verdict="redirect", ns=2,
    us=1.0, object="prog 2", link_layer="ip", before=ip(b"\x0a\x60\0\1"),
)  # fmt: skip
END = Hop(
    step=Step.DATA_READY, hook="data_ready", evidence=Evidence.TRACEPOINT, node="beta",
    namespace="server", device="eth0", ns=3, us=2.0, object="prog 3", verdict="delivered",
    link_layer="ip", before=ip(b"\x0a\0\2\x0a"),
)  # fmt: skip
DENIED = replace(HOOK, verdict="drop", drop_reason="POLICY")
GOOD = Trace(packet=PACKET, hops=(SENT, HOOK, END))
DROPPED = Trace(packet=PACKET, hops=(SENT, DENIED))
WRAPPED = Trace(
    packet=PACKET, hops=(SENT, replace(HOOK, link_layer="ethernet", before=vxlan(frame())))
)

HOLDS = {
    "in order": (GOOD, lambda e: e.passes("dev_xmit", "from-container", Step.DATA_READY)),
    "at a place": (GOOD, lambda e: e.passes("from-container@lxcclient", "data_ready@server")),
    "by program": (GOOD, lambda e: e.passes("cil_from_container")),
    "never there": (GOOD, lambda e: e.never("ip_rcv", "from-container@beta")),
    "exactly these": (GOOD, lambda e: e.only("dev_xmit", "from-container", "data_ready")),
    "exactly these in a namespace": (GOOD, lambda e: e.only("data_ready", namespace="server")),
    "delivered to a pod": (GOOD, lambda e: e.delivered("server")),
    "dropped at a hook for a reason": (
        DROPPED, lambda e: e.dropped("from-container", reason="POLICY"),
    ),
    "rewritten to a backend": (GOOD, lambda e: e.rewritten(destination="10.0.2.10")),
    "rewritten inside a tunnel": (WRAPPED, lambda e: e.rewritten(destination="10.0.2.10")),
}  # fmt: skip
FAILS = {
    "in the other order": (GOOD, lambda e: e.passes("from-container", "dev_xmit"), "dev_xmit"),
    "at another place": (GOOD, lambda e: e.passes("data_ready@client"), "data_ready@client"),
    "never, but it did": (GOOD, lambda e: e.never("from-container"), "must not"),
    "one more than said": (GOOD, lambda e: e.only("dev_xmit", "from-container"), "the end"),
    "one fewer than said": (DROPPED, lambda e: e.only("dev_xmit", "x"), "expected x"),
    "delivered elsewhere": (GOOD, lambda e: e.delivered("client"), "not delivered to client"),
    "not dropped": (GOOD, lambda e: e.dropped(), "was not dropped"),
    "dropped for another reason": (DROPPED, lambda e: e.dropped(reason="NO_SOCKET"), "for POLICY"),
    "not rewritten": (DROPPED, lambda e: e.rewritten(destination="10.96.0.1"), "at the end"),
    "wrapped, not rewritten": (
        WRAPPED, lambda e: e.rewritten(source="172.30.0.1"), "it is 10.0.1.10",
    ),
    "anything after a loss": (replace(GOOD, lost=1), lambda e: e.delivered(), "1 events were lost"),
}  # fmt: skip


@pytest.mark.parametrize(("trace", "statement"), HOLDS.values(), ids=HOLDS.keys())
def test_a_true_statement_holds(trace, statement):
    statement(trace.expect())


@pytest.mark.parametrize(("trace", "statement", "says"), FAILS.values(), ids=FAILS.keys())
def test_a_false_statement_says_what_was(trace, statement, says):
    with pytest.raises(CheckFailed, match=says):
        statement(trace.expect())


def test_a_failure_tells_the_story_with_the_difference_marked():
    with pytest.raises(CheckFailed) as failed:
        GOOD.expect().never("from-container")
    (marked,) = (line for line in failed.value.message.splitlines() if line.startswith(">"))
    assert "from-container" in marked


def test_a_golden_trace_ignores_times_and_numbers(tmp_path):
    golden = tmp_path / "walk.golden"
    GOOD.matches(golden, update=True)
    later = replace(GOOD, hops=tuple(replace(hop, ns=hop.ns + 9, us=7.0) for hop in GOOD.hops))
    later.matches(golden)
    with pytest.raises(CheckFailed, match="line 2"):
        DROPPED.matches(golden)


def test_a_golden_trace_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="update-golden"):
        GOOD.matches(tmp_path / "none")
