"""What conntrack says of a packet, seen in the traces, and what it remembers."""

import time
from functools import partial

import pytest
from scapy.layers.inet import ICMP

from lab.datapath.events import TraceEvent
from lab.datapath.testrun import Verdict
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.layouts.attach import Hook
from lab.layouts.flows import CtFlag, ServiceFlag
from tests.datapath.scene import (
    CLIENT,
    NEIGHBOUR,
    REMOTE,
    VIP,
    WORLD,
    Scene,
    echo,
    frame,
    tcp,
    udp,
    unreachable,
)


def out(packet):
    return "out", packet


def back(packet):
    return "back", packet


def play(scene, packets):
    """Send packets through the client's programs; return conntrack's word on the last."""
    for way, packet in packets:
        send = scene.deliver if way == "back" else partial(scene.run, Hook.FROM_CONTAINER)
        result = send(packet)
        assert result.verdict is not Verdict.DROP
    told = [event for event in result.events if isinstance(event, TraceEvent)]
    return told[-1].reason


SYN, SYNACK = tcp(CLIENT, REMOTE), tcp(REMOTE, CLIENT, 80, 40000, "SA")
ACK, FIN = tcp(CLIENT, REMOTE, flags="A"), tcp(CLIENT, REMOTE, flags="FA")
FIN_BACK, RST = tcp(REMOTE, CLIENT, 80, 40000, "FA"), tcp(REMOTE, CLIENT, 80, 40000, "RA")
ASK, ANSWER = udp(CLIENT, REMOTE), udp(REMOTE, CLIENT, 53, 40000)
PING, PONG = echo(CLIENT, REMOTE), echo(REMOTE, CLIENT, answer=True)
ERROR = unreachable(REMOTE, CLIENT, ASK)

STATUS = {
    "the first packet: new": ([out(SYN)], "new"),
    "one more: established": ([out(SYN), out(ACK)], "established"),
    "its answer: reply": ([out(SYN), back(SYNACK)], "reply"),
    "after the answer: established": ([out(SYN), back(SYNACK), out(ACK)], "established"),
    "an unasked packet: new": ([back(SYN_IN := tcp(REMOTE, CLIENT))], "new"),
    "the answer to it: reply": ([back(SYN_IN), out(tcp(CLIENT, REMOTE, 80, 40000, "SA"))], "reply"),
    "a SYN on a closed flow: reopened": (
        [out(SYN), back(SYNACK), out(FIN), back(FIN_BACK), out(SYN)],
        "reopened",
    ),
    "a SYN on a half-closed flow: reopened": (
        [out(SYN), back(SYNACK), out(FIN), out(SYN)],
        "reopened",
    ),
    "the last ACK of a closed flow does not open it": (
        [out(SYN), back(SYNACK), out(FIN), back(FIN_BACK), out(ACK)],
        "established",
    ),
    "a SYN on a refused flow: reopened": ([out(SYN), back(RST), out(SYN)], "reopened"),
    "a SYN from who answered a closed flow: new": (
        CLOSED := [
            out(SYN),
            back(SYNACK),
            out(FIN),
            back(FIN_BACK),
            back(tcp(REMOTE, CLIENT, 80, 40000)),
        ],
        "new",
    ),
    "what it goes on with: established": (
        [*CLOSED, back(tcp(REMOTE, CLIENT, 80, 40000, "A"))],
        "established",
    ),
    "a late SYN and ACK on a closed flow: reply": (
        [out(SYN), back(SYNACK), out(FIN), back(FIN_BACK), back(SYNACK)],
        "reply",
    ),
    "UDP's answer: reply": ([out(ASK), back(ANSWER)], "reply"),
    "UDP from another port: new": ([out(ASK), back(udp(REMOTE, CLIENT, 54, 40000))], "new"),
    "a pong: reply": ([out(PING), back(PONG)], "reply"),
    "a pong to another ping: new": (
        [out(PING), back(echo(REMOTE, CLIENT, 78, answer=True))],
        "new",
    ),
    "an ICMP error about the flow: related": ([out(ASK), back(ERROR)], "related"),
    "an error about a ping: related": (
        [out(PING), back(unreachable(REMOTE, CLIENT, PING))],
        "related",
    ),
    "a router's error about the flow: related": (
        [out(ASK), back(unreachable(WORLD, CLIENT, ASK, kind=11, code=0))],
        "related",
    ),
    "the pod's own error about what it got: related": (
        [back(ANSWER), out(unreachable(CLIENT, REMOTE, ANSWER))],
        "related",
    ),
    "an error that quotes what was never sent: new": (
        [out(ASK), back(unreachable(REMOTE, CLIENT, udp(CLIENT, REMOTE, 1, 2)))],
        "new",
    ),
    "an error that quotes somebody else's packet: new": (
        [out(ASK), back(unreachable(REMOTE, CLIENT, udp(NEIGHBOUR, REMOTE)))],
        "new",
    ),
    "an ICMP message without a flow: new": ([out(frame(CLIENT, REMOTE, ICMP(type=13)))], "new"),
}


@pytest.mark.parametrize(("packets", "status"), STATUS.values(), ids=STATUS.keys())
def test_status(scene, packets, status):
    assert play(scene, packets) == status


def entries(scene, name="cilium_ct4_global"):
    return scene.map(name).items()


def test_a_forged_error_opens_nothing(scene):
    play(scene, [back(unreachable(REMOTE, CLIENT, udp(CLIENT, REMOTE, 1, 2)))])
    assert not entries(scene) and not entries(scene, "cilium_ct_any4_global")


LIFETIMES = {
    "a SYN alone: a minute": ([out(SYN)], 60),
    "both have spoken: six hours": ([out(SYN), back(SYNACK), out(ACK)], 21600),
    "one has closed: still six hours": ([out(SYN), back(SYNACK), out(FIN)], 21600),
    "both have closed: ten seconds": ([out(SYN), back(SYNACK), out(FIN), back(FIN_BACK)], 10),
    "refused: ten seconds": ([out(SYN), back(RST)], 10),
    "reopened: a minute again": ([out(SYN), back(SYNACK), out(FIN), back(FIN_BACK), out(SYN)], 60),
}


@pytest.mark.parametrize(("packets", "seconds"), LIFETIMES.values(), ids=LIFETIMES.keys())
def test_lifetime_of_a_tcp_entry(scene, packets, seconds):
    play(scene, packets)
    [(_, entry)] = entries(scene)
    left = entry.lifetime - time.clock_gettime(time.CLOCK_MONOTONIC)
    assert seconds - 2 <= left <= seconds + 1


def test_a_udp_entry_lives_a_minute(scene):
    play(scene, [out(ASK)])
    [(_, entry)] = entries(scene, "cilium_ct_any4_global")
    assert 58 <= entry.lifetime - time.clock_gettime(time.CLOCK_MONOTONIC) <= 61


def test_the_key_has_addresses_swapped_and_ports_in_order(scene):
    play(scene, [out(SYN)])
    [(key, entry)] = entries(scene)
    assert (str(key.saddr), str(key.daddr)) == (REMOTE, CLIENT)
    assert (key.sport, key.dport, key.nexthdr, key.flags) == (40000, 80, 6, 0)
    assert entry.src_sec_id == 256


def test_packets_are_counted_by_direction(scene):
    play(scene, [out(SYN), back(SYNACK), out(ACK)])
    [(_, entry)] = entries(scene)
    assert (entry.tx_packets, entry.rx_packets) == (2, 1)
    assert entry.tx_bytes == len(SYN) + len(ACK)
    assert (entry.tx_flags_seen, entry.rx_flags_seen) == (0x12, 0x12)


def test_what_came_out_of_the_tunnel_is_remembered_as_such(scene):
    scene.deliver(tcp(REMOTE, CLIENT), tunnel=True)
    [(_, entry)] = entries(scene)
    assert entry.flags & CtFlag.FromTunnel


def test_a_flow_within_the_node_has_one_entry_per_end(scene):
    scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, NEIGHBOUR))
    assert sorted(key.flags for key, _ in entries(scene)) == [0, 1]


def test_a_full_table_loses_old_flows_and_no_packet(scene):
    capacity = scene.map("cilium_ct_any4_global").map.spec.max_entries
    for number in range(2000):
        result = scene.run(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE, 1000 + number))
        assert result.verdict is Verdict.REDIRECT
    assert len(entries(scene, "cilium_ct_any4_global")) <= capacity


FULL = {
    "a pod's flow": (Hook.FROM_CONTAINER, SYN),
    "a pod's flow to a service": (Hook.FROM_CONTAINER, tcp(CLIENT, VIP)),
    "a flow to a service from outside": (Hook.FROM_NETDEV, tcp(WORLD, VIP)),
}


@pytest.fixture(scope="module")
def full_scene():
    """A node whose conntrack takes no further TCP flow, and a service that has a backend."""
    full = BpfMap.create("ct_full", MapSpec(MapType.HASH, 14, 56, 1, 0))
    full.update(bytes(14), bytes(56))
    with Scene(substitutes={"cilium_ct4_global": full}, enable_nodeport=True) as scene:
        scene.service(VIP, 80, [(REMOTE, 8080)], 1, flags=ServiceFlag.ROUTABLE)
        yield scene


@pytest.mark.parametrize(("hook", "packet"), FULL.values(), ids=FULL.keys())
def test_a_table_that_takes_nothing_is_a_counted_drop(full_scene, hook, packet):
    result = full_scene.run(hook, packet)
    assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_CT_CREATE_FAILED")
    counted = [(m.name, m.packets) for m in result.metrics if m.name.startswith("DROP_")]
    assert counted == [("DROP_CT_CREATE_FAILED", 1)]


BUFFERLESS = {
    "on the way out": lambda scene: scene.run(Hook.FROM_CONTAINER, SYN),
    "on the way in": lambda scene: scene.deliver(SYNACK),
}


@pytest.mark.parametrize("send", BUFFERLESS.values(), ids=BUFFERLESS.keys())
def test_without_the_buffer_between_tail_calls_packets_are_dropped(send):
    empty = BpfMap.create("no_buffer", MapSpec(MapType.PERCPU_HASH, 4, 48, 1, 0))
    with Scene(substitutes={"cilium_tail_call_buffer4": empty}) as scene:
        result = send(scene)
    assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_INVALID_TC_BUFFER")
