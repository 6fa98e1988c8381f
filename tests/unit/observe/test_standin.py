"""What a kernel without netfilter programs records: functions stand in for its hooks."""

import socket
import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lab.observe.assemble import assemble
from lab.observe.names import Attached, Names, Place
from lab.observe.records import Config, Kind, Link, Record
from lab.trace import NO_EVIDENCE, Evidence, Side, Step

POD, NODE, SENDER = 1, 2, 3
ETH0 = 2
NETFILTER_DROP, CONSUMED = 7, 1
SYMBOLS = dict(
    enumerate(
        (
            "process_backlog", "ip_rcv", "ip_route_input_noref", "ip_local_deliver", "ip_rcv_core",
            "nf_hook_slow", "__ip_local_out", "sock_def_readable", "udp_queue_rcv_one_skb",
            "veth_xdp_rcv_skb", "veth_poll",
        ),
        100,
    )
)  # fmt: skip
AT = {name: address for address, name in SYMBOLS.items()}
NAMES = Names(
    devices={
        (POD, ETH0): Place("beta", "server", "eth0"),
        (NODE, ETH0): Place("beta", "beta", "eth0"),
        (SENDER, ETH0): Place("alpha", "client", "eth0"),
    },
    programs={"on_chain": 7, "on_ip_rcv": 8, "on_local_deliver": 9, "on_free": 10},
    hooks={(NODE, ETH0, "ingress"): Attached(33, "cil_from_netdev")},
    symbol=lambda address: SYMBOLS.get(address, ""),
    drop_reasons={NETFILTER_DROP: "NETFILTER_DROP", CONSUMED: "CONSUMED"},
)
SERVER = IPv4Address("10.0.2.10")


def datagram() -> bytes:
    body = struct.pack("!HHHH", 4000, 5000, 13, 0) + b"hello"
    source = IPv4Address("10.0.1.10").packed
    return (
        struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 7, 0, 64, 17, 0, source, SERVER.packed
        )
        + body
    )


BLANK = Record(
    ns=0, skb=0xA0, head=0, cookie=0, location=0, arg=0, netns=POD, ifindex=ETH0, length=33, mark=0,
    hash=0, reason=0, verdict=0, cpu=0, config=Config(0), kind=Kind.FUNCTION, link=Link.IP,
    packet=datagram(), stack=(),
)  # fmt: skip
RECEIVED = replace(
    BLANK, ns=10, kind=Kind.RECEIVE_SKB, config=Config.KNOWN, stack=(AT["process_backlog"],)
)
IP_RCV = replace(BLANK, ns=14, location=AT["ip_rcv_core"], config=Config.KNOWN)
CHAIN = replace(BLANK, ns=15, kind=Kind.NETFILTER_FIRST)
PASSED = replace(BLANK, ns=16, kind=Kind.NETFILTER_LAST)
ROUTED = replace(
    BLANK, ns=20, kind=Kind.ROUTE, packet=b"", stack=(AT["ip_route_input_noref"], AT["ip_rcv"]),
    hash=int.from_bytes(SERVER.packed, "little"),
)  # fmt: skip
DELIVERED = replace(BLANK, ns=24, location=AT["ip_local_deliver"], arg=AT["ip_local_deliver"])
READY = replace(
    BLANK, ns=30, kind=Kind.DATA_READY, ifindex=0, arg=socket.AF_INET << 32 | 5000, verdict=1,
    location=AT["sock_def_readable"], stack=(AT["udp_queue_rcv_one_skb"],),
)  # fmt: skip
DELIVERY = [RECEIVED, IP_RCV, ROUTED, DELIVERED, READY]


def one(records):
    (trace,) = assemble(records, (), NAMES)
    return trace


def grade(trace, step):
    return next((hop.evidence for hop in trace.taken if hop.step is step), None)


def test_functions_prove_what_programs_in_the_hooks_would_have_proven():
    trace = one(DELIVERY)
    steps = (Step.IP_RCV, Step.IP_RCV_FINISH, Step.IP_LOCAL_DELIVER)
    assert [grade(trace, step) for step in steps] == [Evidence.PROBE] * 3
    assert grade(trace, Step.NETFILTER_PREROUTING) is None


def test_a_chain_is_met_only_where_there_is_one():
    trace = one([RECEIVED, IP_RCV, CHAIN, PASSED, *DELIVERY[2:]])
    (hop,) = (hop for hop in trace.hops if hop.step is Step.NETFILTER_PREROUTING)
    assert (hop.evidence, hop.verdict) == (Evidence.PROBE, "accept")
    assert [hop.step for hop in trace.taken].count(Step.IP_RCV) == 1


def test_delivery_and_its_chain_are_one_line():
    chain = replace(CHAIN, ns=25, arg=1, location=AT["ip_local_deliver"])
    trace = one([*DELIVERY[:4], chain, replace(PASSED, ns=26, arg=1), READY])
    (hop,) = (hop for hop in trace.taken if hop.step is Step.IP_LOCAL_DELIVER)
    assert (hop.hook, hop.verdict) == ("nf_input", "accept")


# -- bpf_redirect_peer: from the node's uplink into the pod, without a reception there -------------

UPLINK = [
    replace(RECEIVED, netns=NODE, config=Config.KNOWN | Config.TC_INGRESS),
    replace(BLANK, ns=11, kind=Kind.TC_INGRESS, netns=NODE),
]
ABOVE = {Step.IP_RCV, Step.IP_RCV_FINISH, Step.IP_ROUTING, Step.IP_LOCAL_DELIVER, Step.L4_RECEIVE}
WITNESSES = {
    "functions beside the tracepoints": DELIVERY[1:],
    "a look-up of the route and a wake-up alone": [replace(ROUTED, state=ETH0), READY],
}


@pytest.mark.parametrize("seen", WITNESSES.values(), ids=WITNESSES.keys())
def test_what_the_pod_does_with_a_redirected_packet_is_not_told_of_the_uplink(seen):
    trace = one([*UPLINK, *seen])
    taken = {(hop.namespace, hop.device): set() for hop in trace.taken}
    for hop in trace.taken:
        taken[hop.namespace, hop.device].add(hop.step)
    assert not taken["beta", "eth0"] & ABOVE
    assert taken["server", "eth0"] >= ABOVE
    (program,) = (hop for hop in trace.taken if hop.program)
    assert program.verdict == "redirect"


def test_a_look_up_in_the_nodes_own_table_stays_the_nodes():
    trace = one([UPLINK[0], replace(ROUTED, netns=NODE, state=ETH0)])
    assert {hop.namespace for hop in trace.taken} == {"beta"}


# -- dropped before a device -----------------------------------------------------------------------

FREED = replace(
    BLANK, ns=5, kind=Kind.FREE, netns=SENDER, ifindex=0, reason=NETFILTER_DROP,
    location=AT["nf_hook_slow"], stack=(AT["nf_hook_slow"], AT["__ip_local_out"]),
)  # fmt: skip
BEGINS = {
    "its free is all that is seen": [],
    "it was seen to begin": [
        replace(BLANK, ns=1, netns=SENDER, arg=3, location=AT["__ip_local_out"])
    ],
}


@pytest.mark.parametrize("before", BEGINS.values(), ids=BEGINS.keys())
def test_a_rule_in_output_ends_the_packet_on_its_way_out(before):
    trace = one([*before, FREED])
    (drop,) = trace.drops
    assert (drop.hook, drop.side, drop.namespace) == ("nf_output", Side.SEND, "client")
    assert {hop.side for hop in trace.taken} == {Side.SEND}


def test_a_device_of_which_nothing_was_seen_is_no_reason_to_claim_a_step_was_left_out():
    trace = one([*UPLINK, replace(ROUTED, state=ETH0), READY])
    (hop,) = (h for h in trace.hops if h.namespace == "server" and h.step is Step.RECEIVE_SKB)
    assert not hop.taken
    assert hop.reason.startswith(NO_EVIDENCE)


# -- a native program: who ended the sender's buffer is not told -----------------------------------

ENDED = replace(
    BLANK, ns=9, kind=Kind.CONSUME, stack=(AT["veth_xdp_rcv_skb"], AT["veth_poll"]),
)  # fmt: skip
NATIVE = Config.KNOWN | Config.XDP_DRIVER
AGAIN = replace(BLANK, ns=10, kind=Kind.GRO_RECEIVE, skb=0xB0, config=NATIVE)
REDIRECT = replace(BLANK, ns=10, kind=Kind.XDP_REDIRECT, packet=b"")
ENDS = {
    "met again in another buffer: a copy": ([ENDED, AGAIN], True),
    "not met again: it became a frame": ([ENDED, REDIRECT], False),
    "ended elsewhere": ([replace(ENDED, stack=(AT["ip_rcv"],)), AGAIN], False),
}


@pytest.mark.parametrize(("records", "copied"), ENDS.values(), ids=ENDS.keys())
def test_only_a_buffer_that_is_met_again_in_another_was_copied_for_xdp(records, copied):
    trace = one([replace(RECEIVED, ns=8, kind=Kind.NETIF_RX, stack=()), *records])
    steps = {hop.step for hop in trace.taken}
    assert (Step.CLEAN_RX in steps) is copied
    if copied:
        assert Step.XDP_DRIVER in steps
