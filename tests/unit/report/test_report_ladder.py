"""The ladder as text: what every reader must find in it, and nothing wider than 100 columns."""

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console
from traces import DELIVERED, REFUSED, SERVER, frame, hop, skipped

from lab.report.ladder import WIDTH, ladder_text, print_ladder
from lab.report.passages import passages
from lab.trace import Side, Step, Trace

DELIVERED_LINES = ladder_text(DELIVERED).splitlines()
REFUSED_LINES = ladder_text(REFUSED).splitlines()

SAID = {
    "the first step of the receiver, by stack": "✓  1 napi poll            __napi_poll ",
    "a step that was not taken, with its reason": "·  2 XDP in the driver    not taken: no XDP",
    "neighbours with one reason share a line": "· 9-19 steps              not taken: redirected",
    "silence of the trace is no claim": "? 6-7 steps               no evidence either way",
    "what is only implied is marked": "~ 10 ip_rcv               ip_rcv             implied",
    "inner and outer bytes at the underlay": "63+50     38.4",
    "the outer header with the VNI": "outer udp 172.30.0.1:49321 -> 172.30.0.2:8472, VXLAN VNI 256",
    "what the datapath looked up": "cilium_lxc[10.0.2.10] = no entry",
    "where it ends": "✓ delivered to a socket after 94.0 µs",
}


@pytest.mark.parametrize("text", SAID.values(), ids=SAID.keys())
def test_ladder_says(text):
    assert any(text in line for line in DELIVERED_LINES)


@pytest.mark.parametrize("lines", [DELIVERED_LINES, REFUSED_LINES], ids=["delivered", "dropped"])
def test_no_line_is_wider_than_a_hundred_columns(lines):
    assert max(cell_len(line) for line in lines) <= WIDTH


def test_a_drop_names_program_and_reason_and_ends_the_ladder():
    assert "       ✗ dropped by cil_from_container: Invalid source ip" in REFUSED_LINES
    assert REFUSED_LINES[-1] == "✗ dropped at alpha · alpha · lxcclient: Invalid source ip"


def test_the_send_side_comes_first():
    text = "\n".join(DELIVERED_LINES)
    assert text.index("client · eth0 sends") < text.index("alpha · lxcclient receives")


def test_all_nineteen_steps_are_spoken_of_at_the_receiver():
    at = DELIVERED_LINES.index("  server · eth0 receives")
    numbers = [int(line[2:4]) for line in DELIVERED_LINES[at + 1 : at + 20]]
    assert numbers == list(range(1, 20))


def test_lost_events_are_said_at_the_top():
    assert "3 events were lost" in ladder_text(replace(DELIVERED, lost=3)).splitlines()[2]


def test_a_pipe_gets_plain_text():
    out = io.StringIO()
    print_ladder(DELIVERED, Console(file=out, width=80))
    assert out.getvalue().rstrip("\n") == ladder_text(DELIVERED)


def test_a_long_reason_goes_on_below_and_nothing_of_it_is_cut():
    trace = replace(DELIVERED, hops=(skipped(SERVER, Step.GENERIC_XDP, "because " * 40),))
    lines = ladder_text(trace).splitlines()
    assert max(cell_len(line) for line in lines) <= WIDTH
    assert "\n".join(lines).count("because") == 40


def test_a_senders_last_hook_stays_with_the_sender_though_it_reports_late():
    here, there = ("alpha", "client", "eth0"), ("alpha", "alpha", "lxcclient")
    trace = Trace(
        packet=DELIVERED.packet,
        hops=(
            hop(0.0, here, hook="dev_queue"),
            hop(5.0, there, step=Step.RECEIVE_SKB),
            hop(6.0, here, hook="dev_xmit", before=frame()),
            hop(7.0, there, step=Step.TC_INGRESS),
        ),
    )
    found = [(passage.side, len(passage.hops)) for passage in passages(trace)]
    assert found == [(Side.SEND, 2), (Side.RECEIVE, 2)]


def test_a_device_met_again_is_a_new_passage():
    hops = (hop(1.0, SERVER, step=Step.TC_INGRESS), hop(2.0, SERVER, hook="dev_xmit"),
            hop(3.0, SERVER, step=Step.NAPI_POLL))  # fmt: skip
    found = [passage.side for passage in passages(replace(DELIVERED, hops=hops))]
    assert found == ["receive", "send", "receive"]


ENDS = {
    "a segment without data": (hop(1.0, SERVER, step=Step.L4_RECEIVE, hook="tcp_v4_rcv"),
                               "✓ taken in by tcp_v4_rcv in server after 1.0 µs"),
    "a packet lost from sight": (hop(1.0, SERVER, step=Step.RECEIVE_SKB),
                                 "? neither delivered nor seen dropped"),
}  # fmt: skip


@pytest.mark.parametrize(("last", "says"), ENDS.values(), ids=ENDS.keys())
def test_the_last_line_says_how_it_ended(last, says):
    assert ladder_text(replace(DELIVERED, hops=(last,))).splitlines()[-1] == says
