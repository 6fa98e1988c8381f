"""From records to traces, without a kernel: who belongs to whom, and what the absent say."""

import socket
import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lab.observe.assemble import assemble
from lab.observe.names import Attached, Names, Place
from lab.observe.records import Config, Kind, Link, Record, parse_record
from lab.trace import Evidence, Step

CLIENT, SERVER = IPv4Address("10.0.1.10"), IPv4Address("10.0.2.10")
POD, NODE = 1, 2
ETH0, LXC, VXLAN = 2, 10, 5
SYMBOLS = {
    100: "process_backlog", 101: "ip_rcv", 102: "ip_rcv_finish_core", 103: "ip_route_input_noref",
    104: "ip_local_deliver_finish", 105: "udp_unicast_rcv_skb", 106: "sock_def_readable",
    110: "udp_queue_rcv_one_skb", 111: "__udp4_lib_rcv", 112: "ip_rcv_core",
}  # fmt: skip
NAMES = Names(
    devices={
        (POD, ETH0): Place("beta", "server", "eth0"),
        (NODE, LXC): Place("beta", "beta", "lxcserver"),
        (NODE, VXLAN): Place("beta", "beta", "cilium_vxlan"),
    },
    programs={"on_receive_skb": 7, "on_route": 8, "on_data_ready": 9, "on_free": 10},
    hooks={(NODE, VXLAN, "ingress"): Attached(33, "cil_from_overlay")},
    symbol=lambda address: SYMBOLS.get(address, ""),
    drop_reasons={3: "NO_SOCKET", 18: "XFRM_POLICY", 12: "NETFILTER_DROP"},
)


def udp(ident: int = 7, source: IPv4Address = CLIENT, sport: int = 4000) -> bytes:
    body = struct.pack("!HHHH", sport, 5000, 13, 0) + b"hello"
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), ident, 0, 64, 17, 0, source.packed, SERVER.packed
    )
    return head + body


def vxlan(inner: bytes, vni: int = 258) -> bytes:
    frame = bytes(12) + b"\x08\x00" + inner
    body = struct.pack("!HHHH", 1, 8472, 16 + len(frame), 0) + struct.pack("!II", 8 << 24, vni << 8)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28 + len(body), 1, 0, 64, 17, 0, b"\xac\x1e\0\1", b"\xac\x1e\0\2"
    )
    return head + body + frame


BLANK = Record(
    ns=0, skb=0xA0, head=0, cookie=0, location=0, arg=0, netns=POD, ifindex=ETH0, length=33, mark=0,
    hash=0, reason=0, verdict=0, cpu=0, config=Config(0), kind=Kind.RECEIVE_SKB, link=Link.IP,
    packet=udp(), stack=(),
)  # fmt: skip
RECEIVED = replace(BLANK, ns=10, config=Config.KNOWN, stack=(100,))
ROUTED = replace(
    BLANK, ns=20, kind=Kind.ROUTE, packet=b"", stack=(103, 102, 101), arg=254,
    hash=int.from_bytes(SERVER.packed, "little"),
)  # fmt: skip
FIRST = replace(BLANK, ns=15, kind=Kind.NETFILTER_FIRST, arg=0)
LAST = replace(BLANK, ns=16, kind=Kind.NETFILTER_LAST, arg=0)
READY = replace(
    BLANK, ns=30, kind=Kind.DATA_READY, ifindex=0, arg=socket.AF_INET << 32 | 5000, verdict=1,
    location=106, stack=(105, 104),
)  # fmt: skip
DELIVERY = [RECEIVED, FIRST, LAST, ROUTED, READY]


def one(records: list[Record]):
    (trace,) = assemble(records, (), NAMES)
    return trace


def test_a_delivery_takes_the_steps_its_records_prove():
    trace = one(DELIVERY)
    grades = {hop.step: hop.evidence for hop in trace.taken if hop.step}
    assert grades == {
        Step.NAPI_POLL: Evidence.STACK,
        Step.RECEIVE_SKB: Evidence.TRACEPOINT,
        Step.IP_RCV: Evidence.STACK,
        Step.NETFILTER_PREROUTING: Evidence.PROGRAM,
        Step.IP_RCV_FINISH: Evidence.STACK,
        Step.IP_ROUTING: Evidence.TRACEPOINT,
        Step.IP_LOCAL_DELIVER: Evidence.STACK,
        Step.L4_RECEIVE: Evidence.STACK,
        Step.RECEIVE_QUEUE: Evidence.TRACEPOINT,
        Step.DATA_READY: Evidence.TRACEPOINT,
    }
    assert trace.delivered


def test_every_step_is_seen_or_explained_exactly_in_order():
    (passage,) = one(DELIVERY).passages()
    numbers = [hop.step.number for hop in passage.hops if hop.step]
    assert sorted(set(numbers)) == list(range(1, 20))
    assert numbers == sorted(numbers)
    assert all(hop.reason for hop in passage.hops if not hop.taken)


CONFIGURATIONS = {
    "a driver program that was passed by": (Config.XDP_DRIVER, Step.XDP_DRIVER, "came past"),
    "no generic program": (Config(0), Step.GENERIC_XDP, "no generic XDP program on eth0"),
    "no packet socket": (Config(0), Step.CHECK_TAPS, "no packet socket listens on eth0"),
    "no classifier": (Config(0), Step.TC_INGRESS, "no classifier program on ingress of eth0"),
    "no chain on ingress": (Config(0), Step.NETFILTER_INGRESS, "no netdev chain"),
    "UDP checks later": (Config(0), Step.XFRM_POLICY, "UDP makes its IPsec check later"),
    "no IPsec policy": (Config(0), Step.XFRM_POLICY_L4, "no IPsec policy in server"),
}


@pytest.mark.parametrize(
    ("config", "step", "says"), CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys()
)
def test_absence_is_explained_by_the_configuration(config, step, says):
    trace = one([replace(RECEIVED, config=Config.KNOWN | config), *DELIVERY[1:]])
    (hop,) = (hop for hop in trace.hops if hop.step is step)
    assert hop.evidence is Evidence.NOT_TAKEN
    assert says in hop.reason


IMPLICATIONS = {
    "an ingress chain it came through": (Config.NF_INGRESS, Step.NETFILTER_INGRESS),
    "an IPsec policy it came through": (Config.XFRM_POLICY_IN, Step.XFRM_POLICY_L4),
}


@pytest.mark.parametrize(("config", "step"), IMPLICATIONS.values(), ids=IMPLICATIONS.keys())
def test_what_only_follows_is_called_implied(config, step):
    trace = one([replace(RECEIVED, config=Config.KNOWN | config), *DELIVERY[1:]])
    (hop,) = (hop for hop in trace.hops if hop.step is step)
    assert hop.evidence is Evidence.IMPLIED


DROPS = {
    "nobody listens": (3, 111, Step.L4_RECEIVE, "NO_SOCKET"),
    "IPsec forbids UDP": (18, 110, Step.XFRM_POLICY_L4, "XFRM_POLICY"),
    "IPsec forbids another protocol": (18, 104, Step.XFRM_POLICY, "XFRM_POLICY"),
    "a rule in prerouting": (12, 0, Step.NETFILTER_PREROUTING, "NETFILTER_DROP"),
    "a bad header": (77, 112, Step.IP_RCV, "reason 77"),
}


@pytest.mark.parametrize(("reason", "location", "step", "name"), DROPS.values(), ids=DROPS.keys())
def test_a_free_ends_the_ladder_at_its_step(reason, location, step, name):
    freed = replace(BLANK, ns=40, kind=Kind.FREE, reason=reason, location=location)
    (drop,) = one([RECEIVED, FIRST, freed]).drops
    assert (drop.step, drop.drop_reason) == (step, name)


def test_a_buffer_address_used_again_is_another_packet():
    again = [replace(record, ns=record.ns + 100, packet=record.packet and udp(ident=8))
             for record in DELIVERY]  # fmt: skip
    first, second = assemble(DELIVERY + again, (), NAMES)
    assert len(first.taken) == len(second.taken)


def test_the_reply_is_another_packet_though_it_carries_the_same_cookie():
    there = replace(RECEIVED, cookie=5)
    back = replace(RECEIVED, ns=50, skb=0xB0, cookie=5, packet=udp(source=SERVER))
    assert len(assemble([there, back], (), NAMES)) == 2


def test_contents_join_a_new_buffer():
    before = replace(BLANK, ns=1, kind=Kind.DEV_XMIT, skb=0xC0, netns=NODE, ifindex=LXC)
    assert len(one([before, *DELIVERY]).passages()) == 2


def test_the_buffer_joins_translated_addresses():
    before = replace(
        BLANK, ns=1, kind=Kind.DEV_XMIT, netns=NODE, ifindex=LXC,
        packet=udp(source=IPv4Address("10.9.9.9"), sport=1),
    )  # fmt: skip
    trace = one([before, *DELIVERY])
    assert trace.packet.source == "10.9.9.9"
    assert trace.hops[0].after == udp()


def test_a_tunnel_is_seen_through_and_its_identity_read():
    outer = replace(BLANK, ns=1, kind=Kind.DEV_XMIT, netns=NODE, ifindex=LXC, packet=vxlan(udp()))
    trace = one([outer, *DELIVERY])
    assert (trace.packet.source, trace.hops[0].identity) == (str(CLIENT), 258)


def test_a_redirect_is_the_verdict_that_what_follows_shows():
    hook = replace(
        BLANK, ns=2, kind=Kind.TC_INGRESS, netns=NODE, ifindex=VXLAN, config=Config.KNOWN
    )
    trace = one([hook, *DELIVERY])
    (seen,) = trace.at("beta", device="cilium_vxlan")[:1] and [
        hop for hop in trace.at(device="cilium_vxlan") if hop.step is Step.TC_INGRESS
    ]
    assert (seen.hook, seen.program, seen.verdict) == (
        "from-overlay", "cil_from_overlay", "redirect",
    )  # fmt: skip


def test_losses_are_told():
    (trace,) = assemble(DELIVERY, (), NAMES, lost=3)
    assert trace.lost == 3


def test_a_record_has_the_size_that_the_probes_write():
    with pytest.raises(struct.error):
        parse_record(bytes(10))
