"""From entered functions to a ladder, without a kernel: what a record proves, what silence says."""

import re
import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lab.datapath.build import SOURCES
from lab.observe.assemble import assemble
from lab.observe.functions import FUNCTION_READING, FUNCTIONS, probed
from lab.observe.names import Attached, Names, Place
from lab.observe.records import Config, Kind, Link, Record
from lab.trace import Evidence, Side, Step

POD, NODE = 1, 2
ETH0, UPLINK = 2, 3
ADDRESSES = {function.name: number for number, function in enumerate(FUNCTIONS, 1000)}
OTHERS = {"process_backlog": 1, "ip_rcv_finish_core": 2, "__udp4_lib_rcv": 3}
NAMED = {number: name for name, number in (ADDRESSES | OTHERS).items()}
NAMES = Names(
    devices={
        (POD, ETH0): Place("beta", "server", "eth0"),
        (NODE, UPLINK): Place("beta", "beta", "eth0"),
    },
    programs={function.program: 7 for function in FUNCTIONS},
    hooks={(NODE, UPLINK, "ingress"): Attached(33, "cil_from_netdev")},
    symbol=lambda address: NAMED.get(address, ""),
    drop_reasons={2: "NO_SOCKET"},
)


def datagram():
    source, destination = IPv4Address("10.0.1.10"), IPv4Address("10.0.2.10")
    body = struct.pack("!HHHH", 4000, 5000, 13, 0) + b"hello"
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 7, 0, 64, 17, 0, source.packed, destination.packed
    )
    return head + body


def entered(name, ns, **rest):
    blank = Record(
        ns=ns, skb=0xA0, head=0, cookie=0, location=ADDRESSES[name], arg=0, netns=POD, ifindex=ETH0,
        length=33, mark=0, hash=0, reason=0, verdict=0, cpu=0, config=Config(0), kind=Kind.FUNCTION,
        link=Link.IP, packet=datagram(), stack=(),
    )  # fmt: skip
    return replace(blank, **rest)


def returned(name, ns, **rest):
    return entered(name, ns, kind=Kind.FUNCTION_RETURN, packet=b"", netns=0, ifindex=0, **rest)


RECEIVED = [
    entered("__napi_poll", 1, arg=OTHERS["process_backlog"], verdict=3),
    entered("__netif_receive_skb_one_core", 2, config=Config.KNOWN),
]
DELIVERY = [
    *RECEIVED,
    entered("ip_rcv_core", 3),
    entered("ip_route_input_noref", 4, stack=(2,)),
    entered("ip_local_deliver", 5),
    entered("udp_rcv", 6),
    entered("__udp_enqueue_schedule_skb", 7, arg=5000, ifindex=0),
    entered("sock_def_readable", 8, arg=5000, ifindex=0, packet=b""),
]


def one(records):
    (trace,) = assemble(records, (), NAMES, reading=FUNCTION_READING)
    return trace


def grades(trace):
    return {hop.step: hop.evidence for hop in trace.taken if hop.step}


def test_a_delivery_is_proven_by_probes_but_for_the_inlined_step():
    trace = one(DELIVERY)
    found = grades(trace)
    assert found.pop(Step.IP_RCV_FINISH) is Evidence.STACK
    assert set(found.values()) == {Evidence.PROBE}
    assert set(found) == {
        Step.NAPI_POLL, Step.RECEIVE_SKB, Step.IP_RCV, Step.IP_ROUTING, Step.IP_LOCAL_DELIVER,
        Step.L4_RECEIVE, Step.RECEIVE_QUEUE, Step.DATA_READY,
    }  # fmt: skip
    assert trace.delivered


def test_every_step_is_spoken_of_exactly_in_order():
    (passage,) = one(DELIVERY).passages()
    numbers = [hop.step.number for hop in passage.hops if hop.step]
    assert sorted(set(numbers)) == list(range(1, 20))
    assert numbers == sorted(numbers)
    assert all(hop.reason for hop in passage.hops)


def test_without_a_look_up_the_inlined_step_is_implied_by_its_neighbours():
    early = [record for record in DELIVERY if NAMED[record.location] != "ip_route_input_noref"]
    assert grades(one(early))[Step.IP_RCV_FINISH] is Evidence.IMPLIED


CONFIGURED = {
    "no packet socket": (Config(0), Step.CHECK_TAPS, "no packet socket listens on eth0"),
    "a packet socket that was not called": (Config.TAPS, Step.CHECK_TAPS, "packet_rcv"),
    "no chain": (Config(0), Step.NETFILTER_PREROUTING, "no chain hooks prerouting in server"),
    "a chain that was not called": (
        Config.NF_PREROUTING, Step.NETFILTER_PREROUTING, "nf_hook_slow not entered"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "step", "says"), CONFIGURED.values(), ids=CONFIGURED.keys())
def test_silence_is_a_proof_that_configuration_does_not_overrule(config, step, says):
    records = [DELIVERY[0], replace(DELIVERY[1], config=Config.KNOWN | config), *DELIVERY[2:]]
    (hop,) = (hop for hop in one(records).hops if hop.step is step)
    assert hop.evidence is Evidence.NOT_TAKEN
    assert says in hop.reason


CHAINS = {
    "netdev ingress": (5, 0, Step.NETFILTER_INGRESS),
    "prerouting": (2, 0, Step.NETFILTER_PREROUTING),
}


@pytest.mark.parametrize(("family", "hook", "step"), CHAINS.values(), ids=CHAINS.keys())
def test_a_chain_says_by_its_return_what_it_decided(family, hook, step):
    chain = entered("nf_hook_slow", 3, arg=family << 8 | hook)
    accepted = one([*RECEIVED, chain, returned("nf_hook_slow", 4, verdict=1), *DELIVERY[3:]])
    dropped = one([*RECEIVED, chain, returned("nf_hook_slow", 4, verdict=-1)])
    verdicts = [next(h.verdict for h in t.hops if h.step is step) for t in (accepted, dropped)]
    assert verdicts == ["accept", "drop"]
    assert dropped.drops


def test_a_classifier_has_its_verdict_and_its_program():
    at = {"netns": NODE, "ifindex": UPLINK, "config": Config.KNOWN | Config.TC_INGRESS}
    records = [
        entered("__netif_receive_skb_one_core", 1, **at),
        entered("tcf_classify", 2, arg=1, verdict=7, **at),
        *(replace(record, ns=record.ns + 10) for record in RECEIVED),
    ]
    hop = next(hop for hop in one(records).hops if hop.step is Step.TC_INGRESS and hop.taken)
    assert (hop.verdict, hop.program) == ("redirect", "cil_from_netdev")


def test_the_driver_builds_a_buffer_only_if_it_gives_back_another():
    program = {"config": Config.KNOWN | Config.XDP_DRIVER}
    begin = entered("veth_xdp_rcv_skb", 1, **program)
    same = one([begin, returned("veth_xdp_rcv_skb", 2, arg=0xA0), *DELIVERY[1:]])
    other = one([begin, returned("veth_xdp_rcv_skb", 2, arg=0xB0), *DELIVERY[1:]])
    assert Step.CLEAN_RX not in grades(same)
    assert grades(other)[Step.CLEAN_RX] is Evidence.PROBE


def test_napi_without_a_program_does_not_take_step_two():
    records = [entered("veth_xdp_rcv_skb", 1, config=Config.KNOWN), *DELIVERY[1:]]
    assert Step.XDP_DRIVER not in grades(one(records))


def test_a_drop_is_told_by_who_freed_the_buffer():
    stack = (ADDRESSES["kfree_skb_reason"], OTHERS["__udp4_lib_rcv"])
    trace = one([*DELIVERY[:6], entered("kfree_skb_reason", 7, reason=2, stack=stack)])
    (drop,) = trace.drops
    assert (drop.step, drop.drop_reason) == (Step.L4_RECEIVE, "NO_SOCKET")


def test_the_policy_check_belongs_to_the_step_it_comes_from():
    first = one([*DELIVERY[:5], entered("__xfrm_policy_check", 6), *DELIVERY[6:]])
    second = one([*DELIVERY[:6], entered("__xfrm_policy_check", 6), *DELIVERY[6:]])
    assert Step.XFRM_POLICY in grades(first)
    assert Step.XFRM_POLICY_L4 in grades(second)


def test_an_encapsulated_packet_is_sent_anew_by_the_same_namespace():
    records = [
        entered("__ip_local_out", 1, ifindex=0),
        entered("dev_hard_start_xmit", 2),
        entered("__ip_local_out", 3, ifindex=0),
        entered("dev_hard_start_xmit", 4),
    ]
    hooks = [hop.hook for hop in one(records).hops if hop.side is Side.SEND]
    assert hooks == ["ip_local_out", "dev_xmit", "ip_local_out", "dev_xmit"]


@pytest.mark.parametrize("step", Step, ids=lambda step: step.title)
def test_every_step_has_functions_that_prove_it(step):
    assert probed(step)


def test_the_table_and_the_c_file_name_the_same_functions():
    text = (SOURCES / "probes" / "functions.bpf.c").read_text()
    probes = re.findall(r'SEC\("(?:fentry|fexit)/(\w+)"\)\s*int BPF_PROG\((\w+)', text)
    listed = {
        (function.name, program)
        for function in FUNCTIONS
        for program in (function.program, function.over)
        if program
    }
    assert set(probes) == listed
