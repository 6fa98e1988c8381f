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
    113: "ip_local_deliver", 114: "tcp_v4_rcv", 115: "tcp_v4_do_rcv", 116: "tcp_rcv_state_process",
    117: "tcp_conn_request", 118: "ping_rcv", 119: "__netif_receive_skb_core",
    120: "consume_skb",
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
    "a driver program in silence": (Config.XDP_DRIVER, Step.XDP_DRIVER, "nothing told of it"),
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


CALLERS = {
    "before routing": (("nft_do_chain", "nf_hook_slow", "ip_rcv"), Step.NETFILTER_PREROUTING),
    "on delivery": (("nf_hook_slow", "ip_local_deliver", "ip_rcv"), Step.IP_LOCAL_DELIVER),
    "at the device, below which a sender stands": (
        ("nf_hook_slow", "__netif_receive_skb_core", "__napi_poll", "ip_output"),
        Step.NETFILTER_INGRESS,
    ),
}


@pytest.mark.parametrize(("stack", "step"), CALLERS.values(), ids=CALLERS.keys())
def test_without_programs_in_the_chains_the_stack_says_whose_rule_it_was(stack, step):
    known = {number: name for number, name in enumerate(stack, 500)}
    names = replace(NAMES, symbol=lambda address: known.get(address, SYMBOLS.get(address, "")))
    freed = replace(BLANK, ns=40, kind=Kind.FREE, reason=12, location=500, stack=tuple(known))
    (trace,) = assemble([RECEIVED, freed], (), names)
    (drop,) = trace.drops
    assert (drop.step, drop.drop_reason) == (step, "NETFILTER_DROP")
    before_rules = any(hop.step is Step.IP_RCV for hop in trace.taken)
    assert before_rules is (step is not Step.NETFILTER_INGRESS)


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


def test_unpacked_in_the_same_namespace_it_went_through_the_tunnels_socket():
    """Where nothing sits in the IP layer: no netfilter programs, a look-up that was missed."""
    names = replace(NAMES, hooks={(NODE, LXC, "ingress"): Attached(34, "cil_from_netdev")})
    at = {"netns": NODE, "config": Config.KNOWN | Config.TC_INGRESS}
    outer = replace(BLANK, ns=1, ifindex=LXC, packet=vxlan(udp()), **at)
    inner = replace(BLANK, ns=5, ifindex=VXLAN, **at)
    records = [outer, replace(outer, ns=2, kind=Kind.TC_INGRESS), inner]
    (trace,) = assemble(records, (), names)
    lines = {hop.step: hop for hop in trace.at(device="lxcserver")}
    assert lines[Step.TC_INGRESS].verdict == "pass"
    implied = {step for step, hop in lines.items() if hop.evidence is Evidence.IMPLIED}
    assert implied == {
        Step.IP_RCV, Step.IP_RCV_FINISH, Step.IP_LOCAL_DELIVER, Step.L4_RECEIVE
    }  # fmt: skip
    assert lines[Step.NETFILTER_PREROUTING].reason == "no chain hooks prerouting in beta"
    assert "unpacked, it comes in again at cilium_vxlan" in lines[Step.DATA_READY].reason


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


def tcp(flags: int, *, back: bool = False) -> bytes:
    source, destination, ports = (CLIENT, SERVER, (4000, 80))
    if back:
        source, destination, ports = (SERVER, CLIENT, (80, 4000))
    body = struct.pack("!HHIIBBHHH", *ports, 1, 2, 5 << 4, flags, 100, 0, 0)
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, 40, 7, 0, 64, 6, 0)
        + source.packed + destination.packed + body
    )  # fmt: skip


ARRIVED = [replace(record, packet=record.packet and tcp(2)) for record in (RECEIVED, FIRST, LAST)]
INPUT = replace(FIRST, ns=22, arg=1, location=113, packet=tcp(2))
ASKED = replace(
    BLANK, ns=25, kind=Kind.SOCKET_LOOKUP, packet=b"", netns=0, ifindex=0, verdict=6,
    arg=4000 << 16 | 80,
)  # fmt: skip
ANSWERED = replace(ROUTED, ns=26, stack=(117, 116, 115, 114))
USED_UP = replace(BLANK, ns=27, kind=Kind.CONSUME, packet=tcp(2), location=116)
COMPLETED = replace(READY, ns=29, packet=b"", length=0, location=106)
STATE = replace(
    BLANK, ns=28, kind=Kind.TCP_STATE, packet=b"", arg=80, hash=4000, verdict=3 << 8 | 1,
    stack=(115, 114),
)  # fmt: skip


def transport(records: list[Record]):
    return next(hop for hop in one(records).hops if hop.step is Step.L4_RECEIVE)


def test_a_syn_ends_as_a_request_socket_of_the_listener():
    trace = one([*ARRIVED, INPUT, ASKED, ANSWERED, USED_UP])
    hop = transport([*ARRIVED, INPUT, ASKED, ANSWERED, USED_UP])
    assert (hop.evidence, hop.verdict) == (Evidence.TRACEPOINT, "consumed")
    assert "request socket" in hop.reason
    assert "request socket" in trace.hops[-1].reason
    assert not trace.delivered


def test_a_completed_connection_wakes_the_listener_but_delivers_no_packet():
    trace = one([*ARRIVED, INPUT, STATE, COMPLETED])
    (ready,) = (hop for hop in trace.hops if hop.step is Step.DATA_READY)
    assert ready.verdict == "accepted"
    assert not trace.delivered


CONFIRMED = {
    "the look-up of another packet's socket": (ASKED, {"arg": 4001 << 16 | 80}),
    "a look-up for another protocol": (ASKED, {"verdict": 17}),
    "the state of another connection": (STATE, {"hash": 4001}),
    "a state that changes in a system call": (STATE, {"stack": (100,)}),
}


@pytest.mark.parametrize(("record", "wrong"), CONFIRMED.values(), ids=CONFIRMED.keys())
def test_a_join_that_the_ports_do_not_confirm_is_not_made(record, wrong):
    assert transport([*ARRIVED, INPUT, record]).taken
    assert not transport([*ARRIVED, INPUT, replace(record, **wrong)]).taken


def test_a_program_that_asks_for_a_socket_is_not_the_transport():
    assert not transport([*ARRIVED, ASKED]).taken


def test_a_route_attached_behind_prerouting_proves_ip_rcv_finish():
    (hop,) = (hop for hop in one([*ARRIVED, INPUT]).hops if hop.step is Step.IP_RCV_FINISH)
    assert (hop.evidence, "ip_local_deliver" in hop.reason) == (Evidence.PROGRAM, True)


def test_a_packet_steered_to_another_processor_says_so():
    queued = replace(BLANK, ns=9, kind=Kind.NETIF_RX, cpu=1)
    hop = next(hop for hop in one([queued, *DELIVERY]).hops if hop.hook == "netif_rx")
    assert "enqueue_to_backlog of processor 0" in hop.reason


def test_the_reader_is_named():
    read = replace(
        BLANK, ns=40, kind=Kind.SOCKET_READ, packet=b"nc".ljust(16, b"\0"), hash=77, verdict=5,
        arg=5000,
    )  # fmt: skip
    (hop,) = (hop for hop in one([*DELIVERY, read]).hops if hop.hook == "read")
    assert hop.reason == "nc (process 77) read 5 bytes from port 5000"


def test_a_raw_sockets_copy_makes_the_unwanted_original_no_drop():
    freed = replace(BLANK, ns=40, skb=0xA1, kind=Kind.FREE, reason=3, location=118)
    assert one([*DELIVERY, freed]).drops == ()
    (drop,) = one([RECEIVED, FIRST, freed]).drops
    assert drop.step is Step.L4_RECEIVE


def test_a_route_asked_for_elsewhere_does_not_lead_the_packet():
    there = replace(ROUTED, ns=1, skb=0, netns=NODE)
    here = replace(ROUTED, ns=2, skb=0, netns=POD, ifindex=ETH0)
    unknown = replace(ROUTED, ns=2, skb=0, netns=0, ifindex=0, verdict=-11)
    assert one([there, *DELIVERY]).hops[0].hook != "route_output"
    (hop,) = (hop for hop in one([unknown, here, *DELIVERY]).hops if hop.hook == "route_output")
    assert (hop.namespace, len(hop.lookups)) == ("server", 2)


def test_the_probe_is_no_part_of_the_stack_it_took():
    named = {1: "bpf_prog_0123456789abcdef_on_free", 2: "bpf_trace_run3", 3: "kfree_skb",
             4: "bpf_prog_0123456789abcdef_cil_from_netdev"}  # fmt: skip
    names = replace(NAMES, symbol=named.__getitem__)
    assert names.frames((1, 2, 3, 4)) == ("kfree_skb", "bpf:cil_from_netdev")


def segment(sequence: int, size: int, *, flags: int = 16, ident: int = 7) -> bytes:
    """The headers of a TCP segment; its payload lies in pages and was not captured."""
    body = struct.pack("!HHIIBBHHH", 4000, 80, sequence, 2, 5 << 4, flags, 100, 0, 0)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40 + size, ident, 0, 64, 6, 0)
    return head + CLIENT.packed + SERVER.packed + body


OUT = replace(BLANK, kind=Kind.NETFILTER_FIRST, arg=3, netns=NODE, ifindex=LXC)
SENT = replace(BLANK, kind=Kind.DEV_XMIT, netns=NODE, ifindex=LXC)
LARGE = replace(OUT, ns=1, skb=1, head=1, packet=segment(1000, 3000, flags=24))
PIECES = [
    replace(SENT, ns=2 + k, skb=10 + k, head=10 + k,
            packet=segment(1000 + 1000 * k, 1000, ident=7 + k, flags=24 if k == 2 else 16))
    for k in range(3)
]  # fmt: skip


def merges(pieces: list[Record], verdicts: tuple[int, ...] = (2, 1, 1)) -> list[Record]:
    """Each piece on its way into the pod's GRO, and what GRO did with it."""
    found = []
    for piece, verdict in zip(pieces, verdicts, strict=True):
        entry = replace(piece, ns=piece.ns * 10, kind=Kind.GRO_RECEIVE, netns=POD, ifindex=ETH0)
        done = replace(entry, ns=entry.ns + 1, kind=Kind.GRO_RESULT, packet=b"", verdict=verdict)
        found += [entry, done]
    return found


def test_the_segments_of_a_large_send_are_told_with_their_parent():
    large, *pieces = assemble([LARGE, *PIECES], (), NAMES)
    assert large.ties == ("split into packets 1-3",)
    assert [piece.ties for piece in pieces] == [("segment of packet 0",)] * 3


def test_what_lies_outside_the_large_send_is_no_segment_of_it():
    stranger = replace(PIECES[0], packet=segment(4000, 1000))
    assert [trace.ties for trace in assemble([LARGE, stranger], (), NAMES)] == [(), ()]


def test_a_retransmission_begins_at_its_socket_and_is_no_segment():
    again = replace(OUT, ns=3, skb=2, packet=segment(1000, 1000, ident=9))
    assert [trace.ties for trace in assemble([LARGE, again], (), NAMES)] == [(), ()]


def test_segments_that_gro_merges_name_the_packet_they_are_in():
    whole = replace(
        RECEIVED, ns=100, skb=10, head=10, packet=segment(1000, 3000, flags=24), stack=()
    )
    first, *rest = assemble([*PIECES, *merges(PIECES), whole], (), NAMES)
    assert first.ties == ("made of packets 1-2",)
    assert [trace.ties for trace in rest] == [("merged into packet 0",)] * 2
    assert Step.RECEIVE_SKB in first.steps("server")
    assert not any(Step.RECEIVE_SKB in trace.steps("server") for trace in rest)
    assert "merged it into packet 0" in rest[0].hops[-1].reason


def test_the_last_segment_may_complete_the_packet_before_gro_says_so():
    *offered, last = merges(PIECES)
    whole = replace(
        RECEIVED, ns=last.ns, skb=10, head=10, packet=segment(1000, 3000, flags=24), stack=()
    )
    told = [*offered, whole, replace(last, ns=last.ns + 1)]
    first, *_ = assemble([*PIECES, *told], (), NAMES)
    assert first.ties == ("made of packets 1-2",)
    assert Step.RECEIVE_SKB in first.steps("server")


def test_a_merge_that_does_not_follow_what_is_held_is_not_told():
    gap = [PIECES[0], PIECES[2]]
    assert [trace.ties for trace in assemble([*gap, *merges(gap, (2, 1))], (), NAMES)] == [(), ()]


def test_a_copy_with_the_same_storage_goes_its_own_way():
    copy = replace(BLANK, ns=12, skb=0xAF, head=5, kind=Kind.DEV_QUEUE, netns=NODE, ifindex=LXC)
    received = replace(RECEIVED, head=5)
    original, clone = assemble([received, copy, *DELIVERY[1:]], (), NAMES)
    assert original.delivered
    assert clone.ties == ("clone of packet 0",)
    assert original.ties == ("cloned as packet 1",)


def test_the_copy_of_a_packet_socket_is_no_packet_of_its_own():
    tap = replace(READY, ns=12, skb=0xAF, head=5, arg=17 << 32)
    (trace,) = assemble([replace(RECEIVED, head=5), tap, *DELIVERY[1:]], (), NAMES)
    assert Step.CHECK_TAPS in trace.steps("server")


def datagram(payload: bytes, ident: int = 0) -> bytes:
    body = struct.pack("!HHHH", 4000, 5000, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), ident, 0, 64, 17, 0)
    return head + CLIENT.packed + SERVER.packed + body


TWINS = {
    "other payload in another buffer": (datagram(b"hello"), datagram(b"jello"), 0xA1),
    "other payload in the same buffer": (datagram(b"hello"), datagram(b"jello"), 0xA0),
    "the same payload, begun again": (datagram(b"hello"), datagram(b"hello"), 0xA1),
}


@pytest.mark.parametrize(("one", "two", "skb"), TWINS.values(), ids=TWINS.keys())
def test_packets_alike_in_every_header_are_told_apart(one, two, skb):
    first = replace(OUT, ns=1, packet=one)
    second = replace(OUT, ns=2, skb=skb, packet=two)
    assert len(assemble([first, second], (), NAMES)) == 2


def test_a_later_fragments_payload_is_not_read_as_ports():
    fragment = bytearray(datagram(b"hello", ident=7))
    fragment[6:8] = b"\0\x10"
    (trace,) = assemble([replace(RECEIVED, packet=bytes(fragment))], (), NAMES)
    assert (trace.packet.source_port, trace.packet.destination_port) == (0, 0)


COOKIE = 0x77
RELAYED = {
    "a proxy's second connection": (SERVER, IPv4Address("10.0.3.9"), (5555, 80), "caused by"),
    "an echo": (SERVER, CLIENT, (5000, 4000), "answer to"),
    "another sender": (IPv4Address("10.0.9.9"), CLIENT, (5000, 4000), None),
}


@pytest.mark.parametrize(("source", "to", "ports", "tie"), RELAYED.values(), ids=RELAYED.keys())
def test_a_cookie_that_travels_on_is_told_as_related_by_content(source, to, ports, tie):
    body = struct.pack("!HHHH", *ports, 13, 0) + b"hello"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 33, 9, 0, 64, 17, 0) + source.packed + to.packed
    onward = replace(OUT, ns=50, skb=0xB0, cookie=COOKIE, packet=head + body)
    arrived = [replace(record, cookie=record.packet and COOKIE or 0) for record in DELIVERY]
    _, second = assemble([*arrived, onward], (), NAMES)
    assert second.ties == ((f"{tie} packet 0",) if tie else ())
    assert all("content" in relation.reason for relation in second.relations)


def the(trace, step: Step):
    return min((h for h in trace.hops if h.step is step), key=lambda hop: hop.evidence.rank)


USES = {
    "a policy used between the steps": (100, 101, Evidence.COUNTER),
    "a policy used before in the same second": (101, 101, Evidence.IMPLIED),
}


@pytest.mark.parametrize(("before", "after", "grade"), USES.values(), ids=USES.keys())
def test_an_ipsec_policy_is_seen_by_its_time_of_use(before, after, grade):
    received = replace(RECEIVED, config=Config.KNOWN | Config.XFRM_POLICY_IN)
    entered = replace(FIRST, ns=22, arg=1, reason=before)
    ready = replace(READY, reason=after)
    trace = one([received, FIRST, LAST, ROUTED, entered, ready])
    assert the(trace, Step.XFRM_POLICY_L4).evidence is grade


STORAGE = {
    "storage exchanged": (2, Evidence.COUNTER),
    "the same storage": (1, Evidence.IMPLIED),
}


@pytest.mark.parametrize(("head", "grade"), STORAGE.values(), ids=STORAGE.keys())
def test_generic_xdp_is_seen_by_the_storage_it_exchanges(head, grade):
    received = replace(RECEIVED, head=1, config=Config.KNOWN | Config.XDP_GENERIC)
    trace = one([received, replace(FIRST, head=head), replace(LAST, head=head), ROUTED])
    assert the(trace, Step.GENERIC_XDP).evidence is grade


def test_of_a_list_the_first_is_looked_up_though_the_last_was_seen_last():
    """Every packet of a list passes prerouting before the first of them is routed."""
    listed = []
    for k in range(2):
        part = [replace(record, ns=record.ns + k, skb=0xA0 + k, packet=datagram(bytes([65 + k])))
                for record in (RECEIVED, FIRST, replace(LAST, ns=17))]  # fmt: skip
        listed += part
    ends = {"head": int.from_bytes(CLIENT.packed, "little")}
    first, second = assemble([*listed, replace(ROUTED, ns=20, skb=0xA1, **ends)], (), NAMES)
    assert Step.IP_ROUTING in first.steps("server")
    assert Step.IP_ROUTING not in second.steps("server")


def test_losses_are_told():
    (trace,) = assemble(DELIVERY, (), NAMES, lost=3)
    assert trace.lost == 3


def test_a_record_has_the_size_that_the_probes_write():
    with pytest.raises(struct.error):
        parse_record(bytes(10))


KEPT = {
    "where the kernel says who ended it": ({"location": 119}, "stolen"),
    "where only the stack does": ({"stack": (120, 119, 100)}, "stolen"),
    "not where others on the stack did": ({"stack": (120, 110, 119)}, "pass"),
}


@pytest.mark.parametrize(("change", "verdict"), KEPT.values(), ids=KEPT.keys())
def test_a_packet_that_a_classifier_keeps_ends_there(change, verdict):
    names = replace(NAMES, hooks={(POD, ETH0, "ingress"): Attached(34, "tc_keep")})
    asked = replace(BLANK, ns=12, kind=Kind.TC_INGRESS)
    ended = replace(BLANK, ns=14, kind=Kind.CONSUME, **change)
    (trace,) = assemble([RECEIVED, asked, ended], (), names)
    [hop] = [hop for hop in trace.taken if hop.program == "tc_keep"]
    assert hop.verdict == verdict
