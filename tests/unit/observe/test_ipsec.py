"""Across encryption a packet is known by its buffer and its number, and by nothing less."""

import socket
import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lab.observe import ipsec
from lab.observe.absent import Why
from lab.observe.assemble import assemble
from lab.observe.functions import FUNCTION_READING
from lab.observe.met import Told
from lab.observe.names import Names, Place
from lab.observe.policies import parse_policies
from lab.observe.recording import Recording
from lab.observe.records import Config, Kind, Link, Record
from lab.observe.why import diagnose
from lab.report.headers import layers
from lab.trace import Evidence, Step, Trace, merge

CLIENT, SERVER = IPv4Address("10.0.1.10"), IPv4Address("10.0.2.10")
SENDER, RECEIVER, ETH0 = 1, 2, 2
SPI = 0x100
SYMBOLS = {
    1: "sock_def_readable", 2: "xfrm4_rcv", 3: "xfrm4_esp_rcv", 4: "ip_protocol_deliver_rcu",
    5: "ip_local_deliver_finish", 6: "udp_unicast_rcv_skb", 7: "__udp4_lib_rcv", 8: "xfrm_input",
    9: "process_backlog", 10: "dst_discard_out", 11: "ip_local_deliver", 12: "ip_rcv_core",
}  # fmt: skip
NAMES = Names(
    devices={
        (SENDER, ETH0): Place("alpha", "client", "eth0"),
        (RECEIVER, ETH0): Place("beta", "server", "eth0"),
    },
    programs={probe.name: 7 for probe in ipsec.PROBES},
    symbol=lambda address: SYMBOLS.get(address, ""),
    drop_reasons={2: "NOT_SPECIFIED", 14: "XFRM_POLICY"},
)


def header(protocol: int, size: int, ident: int = 7) -> bytes:
    first = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, ident, 0, 64, protocol, 0)
    return first + CLIENT.packed + SERVER.packed


def esp(number: int = 1, spi: int = SPI, ident: int = 7) -> bytes:
    body = struct.pack("!II", spi, number) + bytes(range(40))
    return header(50, len(body), ident) + body


CLEAR = header(17, 13) + struct.pack("!HHHH", 4000, 5000, 13, 0) + b"hello"


def on_wire(value: int) -> int:
    return socket.htonl(value)


BLANK = Record(
    ns=0, skb=0xA00, head=0, cookie=0, location=0, arg=0, netns=RECEIVER, ifindex=ETH0, length=33,
    mark=0, hash=0, reason=0, verdict=0, cpu=0, config=Config(0), kind=Kind.RECEIVE_SKB,
    link=Link.IP, packet=CLEAR, stack=(),
)  # fmt: skip
STATE = {"state": on_wire(SPI), "arg": int.from_bytes(SERVER.packed, "little")}
OUTPUT = replace(BLANK, ns=10, kind=Kind.XFRM_OUTPUT, netns=SENDER, **STATE)
ENCRYPT = replace(
    BLANK, ns=11, kind=Kind.XFRM_ENCRYPT, netns=SENDER, packet=b"", hash=on_wire(1), **STATE
)
SENT = replace(BLANK, ns=12, kind=Kind.DEV_QUEUE, netns=SENDER, packet=esp())
SENDING = (OUTPUT, ENCRYPT, SENT)
POLICY = Config.KNOWN | Config.XFRM_POLICY_IN
ARRIVED = replace(BLANK, ns=20, packet=esp(), config=POLICY, stack=(9,))
INPUT = replace(BLANK, ns=21, kind=Kind.XFRM_INPUT, packet=esp(), stack=(2, 3, 4, 5))
DECRYPT = replace(BLANK, ns=22, kind=Kind.XFRM_DECRYPT, packet=b"", verdict=17)
DELIVER = replace(BLANK, ns=23, kind=Kind.XFRM_DELIVER, config=POLICY)
CHECK = replace(BLANK, ns=24, kind=Kind.XFRM_CHECK, verdict=1)
READY = replace(
    BLANK, ns=25, kind=Kind.DATA_READY, ifindex=0, arg=socket.AF_INET << 32 | 5000, verdict=1,
    location=1, stack=(6, 7, 5),
)  # fmt: skip
RECEIVING = (ARRIVED, INPUT, DECRYPT, DELIVER, CHECK, READY)


def one(*records: Record) -> Trace:
    (trace,) = assemble(records, (), NAMES)
    return trace


def test_one_trace_goes_from_the_sender_across_encryption_to_the_socket():
    trace = one(*SENDING, *RECEIVING)
    assert trace.delivered
    assert (trace.packet.protocol, trace.packet.destination_port) == ("udp", 5000)
    shown = [layers(hop.before or b"", "ip") for hop in trace.taken if hop.before]
    names = [tuple(layer.name for layer in found)[1] for found in shown]
    assert names[0] == "udp"
    assert names[-1] == "udp"
    assert "esp" in names
    (number,) = {found[1].get("sequence") for found in shown if found[1].name == "esp"}
    assert number == "1"


def test_what_encryption_changed_stands_before_and_after_at_its_hop():
    trace = one(*SENDING, *RECEIVING)
    out = next(hop for hop in trace.taken if hop.hook == "xfrm_output")
    assert (out.before, out.after) == (CLEAR, esp())
    assert "SPI 0x00000100, sequence number 1" in out.reason
    assert [str(met) for met in out.met] == [
        "xfrm state dst 10.0.2.10 proto esp spi 0x00000100: mode transport, sequence number 1"
    ]
    inwards = next(hop for hop in trace.taken if hop.hook == ipsec.ESP_INPUT)
    assert (inwards.before, inwards.after) == (esp(), CLEAR)
    assert [met.name for met in inwards.met] == ["spi 0x00000100 sequence number 1"]
    assert (out.verdict, inwards.verdict) == ("encrypted", "decrypted")


def test_it_is_delivered_twice_and_checked_once():
    trace = one(*SENDING, *RECEIVING)
    told = [hop for hop in trace.at(namespace="server") if hop.step is Step.IP_LOCAL_DELIVER]
    assert [hop.evidence for hop in told] == [Evidence.STACK, Evidence.PROBE]
    checks = [hop for hop in trace.taken if hop.step in (Step.XFRM_POLICY, Step.XFRM_POLICY_L4)]
    assert [(hop.step, hop.verdict) for hop in checks] == [(Step.XFRM_POLICY_L4, "accept")]
    visits = [run for run in trace.passages() if run.place[1] == "server"]
    assert len(visits) == 2
    left_out = {hop.step: hop.reason for hop in visits[1].hops if not hop.taken}
    assert Why.REINJECTED.told(left_out[Step.IP_ROUTING])
    assert Why.REINJECTED.told(left_out[Step.NAPI_POLL])


def test_where_functions_stand_in_for_netfilter_each_delivery_is_told_once():
    first = replace(ARRIVED, ns=20, kind=Kind.FUNCTION, location=11, stack=(), config=Config(0))
    second = replace(DELIVER, ns=23, kind=Kind.FUNCTION, location=11, config=Config(0))
    # of two probes of one function either may be asked first
    for two in ((second, DELIVER), (replace(DELIVER, ns=22), replace(second, ns=23))):
        trace = one(*SENDING, ARRIVED, first, INPUT, DECRYPT, *two, CHECK, READY)
        told = [hop for hop in trace.at(namespace="server") if hop.step is Step.IP_LOCAL_DELIVER]
        assert [hop.evidence for hop in told] == [Evidence.PROBE, Evidence.PROBE]
        assert "decrypted" in told[1].reason
    assert len([run for run in trace.passages() if run.place[1] == "server"]) == 2


def test_prerouting_of_what_was_decrypted_is_no_second_ip_rcv():
    chain = replace(DELIVER, kind=Kind.NETFILTER_FIRST, arg=0, config=Config(0))
    trace = one(*SENDING, ARRIVED, INPUT, DECRYPT, chain, replace(DELIVER, ns=24), READY)
    steps = trace.passages()[-1].hops
    assert {hop.step for hop in steps if hop.taken} >= {Step.NETFILTER_PREROUTING}
    assert not [hop for hop in steps if hop.taken and hop.step is Step.IP_RCV]


FUNCTION_NAMES = ("xfrm_output", "esp_output", "__dev_queue_xmit", "__netif_receive_skb_one_core",
                  "ip_local_deliver", "xfrm4_esp_rcv", "esp_input", "udp_rcv",
                  "__xfrm_policy_check", "__udp_enqueue_schedule_skb",
                  "sock_def_readable")  # fmt: skip
ADDRESSES = {name: number for number, name in enumerate(FUNCTION_NAMES, 100)}


def entered(name: str, like: Record, **rest: object) -> Record:
    known = {"kind": Kind.FUNCTION, "location": ADDRESSES[name], "stack": (), **rest}
    return replace(like, **known)


def test_both_witnesses_tell_the_same_of_an_encrypted_packet():
    by_address = {number: name for name, number in ADDRESSES.items()} | SYMBOLS
    names = replace(NAMES, symbol=lambda address: by_address.get(address, ""))
    functions = [
        entered("xfrm_output", OUTPUT),
        entered("esp_output", ENCRYPT, kind=Kind.XFRM_ENCRYPT),
        entered("__dev_queue_xmit", SENT),
        entered("__netif_receive_skb_one_core", ARRIVED),
        entered("ip_local_deliver", replace(INPUT, ns=20)),
        entered("xfrm4_esp_rcv", INPUT),
        entered("esp_input", DECRYPT, kind=Kind.XFRM_DECRYPT),
        entered("ip_local_deliver", DELIVER),
        entered("udp_rcv", DELIVER),
        entered("__xfrm_policy_check", CHECK),
        entered("__udp_enqueue_schedule_skb", READY, arg=5000),
        entered("sock_def_readable", READY, arg=5000, packet=b""),
    ]
    (ours,) = assemble([*SENDING, *RECEIVING], (), names)
    (theirs,) = assemble(functions, (), names, reading=FUNCTION_READING)
    both = merge(ours, theirs)
    assert both.witnesses
    # the functions below delivery are left out here
    apart = [d for d in both.witnesses.differences if not d.step or d.step > Step.IP_ROUTING]
    assert apart == []
    told = [hop for hop in both.taken if hop.step is Step.IP_LOCAL_DELIVER]
    assert [hop.evidence for hop in told] == [Evidence.PROBE] * 2
    assert Trace.from_json(both.to_json()) == both


NO_JOIN = {
    "nothing told which number the packet was given": (OUTPUT, SENT),
    "the packet on the wire has another number": (OUTPUT, ENCRYPT, replace(SENT, packet=esp(2))),
    "the packet on the wire is of another association": (
        OUTPUT, ENCRYPT, replace(SENT, packet=esp(1, 0x200)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("records", NO_JOIN.values(), ids=NO_JOIN.keys())
def test_without_its_number_an_encrypted_packet_is_a_packet_of_its_own(records):
    clear, hidden = assemble(records, (), NAMES)
    assert (clear.packet.protocol, hidden.packet.protocol) == ("udp", "esp")


def test_in_another_buffer_it_is_still_known_by_its_number():
    away = [replace(record, skb=0xB00) for record in (SENT, *RECEIVING)]
    assert one(OUTPUT, ENCRYPT, *away).delivered


def test_of_an_unknown_sender_the_buffer_tells_what_was_inside():
    trace = one(*RECEIVING)
    assert trace.packet.protocol == "udp"
    assert trace.delivered
    apart = assemble([replace(r, skb=r.skb + (r.ns > 22)) for r in RECEIVING], (), NAMES)
    assert [trace.packet.protocol for trace in apart] == ["esp", "udp"]


FREED = replace(
    BLANK, ns=23, kind=Kind.FREE, packet=esp(), location=8, reason=2, stack=(8, 2, 3, 4, 5)
)
GIVEN_UP = {
    "an unknown SPI": (replace(DECRYPT, kind=Kind.XFRM_FAULT, arg=1), "XfrmInNoStates", "SPI"),
    "a repeated number": (
        replace(DECRYPT, kind=Kind.XFRM_FAULT, arg=2), "XfrmInStateSeqError", "replay",
    ),
    "another key": (replace(DECRYPT, verdict=-74), "XfrmInStateProtoError", "key is another"),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "reason", "words"), GIVEN_UP.values(), ids=GIVEN_UP.keys())
def test_what_the_receiver_gives_up_is_named(fault, reason, words):
    trace = one(*SENDING, ARRIVED, INPUT, fault, FREED)
    (drop,) = trace.drops
    assert (drop.namespace, drop.step, drop.drop_reason) == ("server", Step.L4_RECEIVE, reason)
    answer = diagnose(recorded(trace), "client")
    assert answer.known
    assert words in answer.paragraph


def recorded(trace: Trace) -> Recording:
    recording = Recording()
    recording.packets, recording.error = (trace,), "timeout"
    return recording


def test_a_sender_without_a_state_is_named():
    discard = replace(BLANK, ns=10, kind=Kind.XFRM_DISCARD, netns=SENDER, ifindex=0)
    freed = replace(FREED, ns=11, packet=CLEAR, netns=0, ifindex=0, location=10, stack=(10,))
    trace = one(discard, freed)
    (drop,) = trace.drops
    assert (drop.namespace, drop.hook, drop.drop_reason) == (
        "client", "xfrm_output", "XfrmOutNoStates",
    )  # fmt: skip
    assert "there is no state" in diagnose(recorded(trace), "client").paragraph


DEMANDS = """src 10.0.1.10/32 dst 10.0.2.10/32
\tdir in priority 0
\ttmpl src 10.0.1.10 dst 10.0.2.10
\t\tproto esp reqid 0 mode transport
"""


def test_a_packet_in_clear_is_told_from_one_that_was_wrapped_wrongly():
    free = replace(FREED, ns=26, packet=CLEAR, reason=14, stack=(6, 7, 5))
    told = Told(policies={RECEIVER: parse_policies(DEMANDS)})
    came = replace(ARRIVED, packet=CLEAR)
    (clear,) = assemble([came, free], (), NAMES, told=told)
    assert "came in clear" in diagnose(recorded(clear), "client").paragraph
    refused = replace(CHECK, verdict=0)
    wrapped = (*SENDING, ARRIVED, INPUT, DECRYPT, DELIVER, refused, free)
    (trace,) = assemble(wrapped, (), NAMES, told=told)
    assert "came in clear" not in diagnose(recorded(trace), "client").paragraph
    assert [hop.step for hop in trace.drops] == [Step.XFRM_POLICY_L4]


def test_a_kernel_without_esp_has_nothing_to_miss(monkeypatch):
    monkeypatch.setattr(ipsec, "has_esp", lambda: False)
    assert ipsec.usable(functions=True) == ()
    assert ipsec.missing(functions=False) == ()
    monkeypatch.setattr(ipsec, "has_esp", lambda: True)
    assert "no function be probed" in ipsec.missing(functions=False)[0]
