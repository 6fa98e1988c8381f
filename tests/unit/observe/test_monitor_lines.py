"""Events in the lines of ``cilium monitor``."""

from ipaddress import IPv4Address

import pytest

from lab import Node, Pod, Topology
from lab.datapath.events import DropEvent, PolicyVerdictEvent, TraceEvent
from lab.observe.monitor import Heard, concerns, connection, line
from lab.packets import frames
from lab.plan.inventory import inventory

FACTS = inventory(Topology(name="t", nodes=(Node("alpha"),), pods=(Pod("client", node="alpha"),)))
MACS = ("02:00:0a:00:01:0a", "06:00:0a:00:01:0a")
ENDS = ("10.0.1.10", "10.0.2.10")
SYN = frames.tcp(MACS, ENDS, (1000, 80), "S")
COMMON = {"cpu": 0, "source": 266, "hash": 0xE6866E21, "packet": SYN, "length": 60}

PACKETS = {
    "a TCP segment with its flags": (
        frames.tcp(MACS, ENDS, (1000, 80), "SA"),
        "10.0.1.10:1000 -> 10.0.2.10:80 tcp SYN, ACK",
    ),
    "a datagram": (
        frames.udp(MACS, ENDS, (1000, 53), b"x"),
        "10.0.1.10:1000 -> 10.0.2.10:53 udp",
    ),
    "an echo request": (
        frames.icmp_echo(MACS, ENDS, 7, b"x"),
        "10.0.1.10 -> 10.0.2.10 EchoRequest",
    ),
    "a question for a MAC address": (
        frames.arp_request(MACS[0], "10.0.1.10", "10.0.1.1"),
        "10.0.1.10 -> 10.0.1.1 arp",
    ),
    "a frame cut inside the IP header": (SYN[:20], "[unknown]"),
    "nothing": (b"", "[unknown]"),
}


@pytest.mark.parametrize(("packet", "text"), PACKETS.values(), ids=PACKETS.keys())
def test_a_packet_in_words(packet, text):
    assert connection(packet) == text


def trace(name, **fields):
    base = {
        "point": 0,
        "name": name,
        "reason": "new",
        "encrypted": False,
        "src_identity": 256,
        "dst_identity": 258,
        "dst_endpoint": 522,
        "ifindex": 5,
        "original_source": None,
    }
    return TraceEvent(**COMMON, **{**base, **fields})


EVENTS = {
    "a drop": (
        DropEvent(
            **COMMON,
            reason=133,
            name="DROP_POLICY",
            text="Policy denied",
            ext_error=0,
            src_identity=256,
            dst_identity=258,
            dst_endpoint=522,
            file="bpf_lxc.c",
            line=99,
            ifindex=10,
        ),
        "xx drop (Policy denied) flow 0xe6866e21 to endpoint 522, ifindex 10, "
        "file bpf_lxc.c:99, identity 256->258: 10.0.1.10:1000 -> 10.0.2.10:80 tcp SYN",
    ),
    "leaving through the tunnel": (
        trace("TO_OVERLAY"),
        "-> overlay flow 0xe6866e21 identity 256->258 state new ifindex cilium_vxlan "
        "orig-ip 0.0.0.0: 10.0.1.10:1000 -> 10.0.2.10:80 tcp SYN",
    ),
    "reaching a pod": (
        trace("TO_LXC", ifindex=10, reason="reply", original_source=IPv4Address("10.96.0.1")),
        "-> endpoint 522 flow 0xe6866e21 identity 256->258 state reply ifindex lxcclient "
        "orig-ip 10.96.0.1: 10.0.1.10:1000 -> 10.0.2.10:80 tcp SYN",
    ),
    "coming from a pod": (
        trace("FROM_LXC", ifindex=0, encrypted=True),
        "<- endpoint 266 encrypted flow 0xe6866e21 identity 256->258 state new ifindex 0 "
        "orig-ip 0.0.0.0: 10.0.1.10:1000 -> 10.0.2.10:80 tcp SYN",
    ),
    "a verdict": (
        PolicyVerdictEvent(
            **COMMON,
            remote_identity=258,
            verdict=0,
            name="",
            port=80,
            protocol=6,
            direction="egress",
            match="L3-Only",
            audited=False,
        ),
        "Policy verdict log: flow 0xe6866e21 local EP ID 266, remote ID 258, proto 6, egress, "
        "action allow, match L3-Only, 10.0.1.10:1000 -> 10.0.2.10:80 tcp SYN",
    ),
}


@pytest.mark.parametrize(("event", "text"), EVENTS.values(), ids=EVENTS.keys())
def test_an_event_in_ciliums_words(event, text):
    assert line(Heard("alpha", event), FACTS) == text


@pytest.mark.parametrize(("endpoint", "answer"), [(266, True), (522, True), (1, False)])
def test_an_event_concerns_teller_and_receiver(endpoint, answer):
    assert concerns(trace("TO_LXC"), endpoint) is answer
