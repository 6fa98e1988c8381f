"""A way leads into a node's IP stack, or around it: never behind it unseen."""

from dataclasses import replace

import pytest
from traces import DELIVERED, hop

from lab.report.scene import Box, Scene
from lab.report.ways import around, in_stack
from lab.trace import SendHook, Step

LXC, UPLINK = ("alpha", "alpha", "lxcclient"), ("alpha", "alpha", "eth0")
STACK = Box("stack", 100, 100, 80, 60, "IP stack")


def device(*hops):
    """Devices at which the lines stand, empty for the stack."""
    return [one.device for one in in_stack(replace(DELIVERED, hops=hops)).hops]


LINES = {
    "a program on tc": ({"step": Step.TC_INGRESS}, "lxcclient"),
    "IP takes it": ({"step": Step.IP_RCV}, ""),
    "a tunnel's socket takes it": ({"step": Step.L4_RECEIVE}, ""),
    "a chain of forwarding": ({"hook": "nf_forward"}, ""),
    "it leaves through a device": ({"hook": "dev_xmit"}, "lxcclient"),
}


@pytest.mark.parametrize(("line", "where"), LINES.values(), ids=LINES.keys())
def test_a_line_about_the_stack_stands_there(line, where):
    assert device(hop(1.0, LXC, **line)) == [where]


def test_a_pods_stack_has_no_box():
    pod = ("alpha", "client", "eth0")
    assert device(hop(1.0, pod, step=Step.IP_RCV)) == ["eth0"]


def test_a_program_asks_for_a_route_where_the_packet_is():
    node = ("alpha", "alpha", "")
    asked = hop(2.0, node, hook=SendHook.ROUTE.value)
    before = hop(1.0, LXC, step=Step.TC_INGRESS)
    assert device(before, asked, hop(3.0, UPLINK, hook="to-netdev")) == [
        "lxcclient", "lxcclient", "eth0",
    ]  # fmt: skip
    chain = hop(3.0, UPLINK, hook=SendHook.NF_OUTPUT.value)
    assert device(before, asked, chain) == ["lxcclient", "", ""]


SEGMENTS = {
    "down past the stack": ((110, 50), (110, 200), [(89, 89), (89, 171)]),
    "up past the stack": ((110, 200), (110, 50), [(89, 171), (89, 89)]),
    "over a corner to the right": ((150, 80), (220, 130), [(191, 89)]),
    "beside the stack": ((50, 50), (50, 200), []),
    "into the stack": ((110, 50), (104, 120), []),
}


@pytest.mark.parametrize(("start", "end", "bends"), SEGMENTS.values(), ids=SEGMENTS.keys())
def test_what_does_not_enter_the_stack_goes_around_it(start, end, bends):
    one = hop(1.0, LXC, step=Step.TC_INGRESS)
    led = around(Scene(boxes=[STACK]), [(start, one), (end, one)])
    assert [at for at, _ in led[1:-1]] == bends
