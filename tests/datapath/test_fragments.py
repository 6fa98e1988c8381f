"""Fragments meet the fate of their first one."""

import pytest
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.l2 import Ether

from lab.datapath.testrun import Verdict
from lab.layouts.attach import Hook
from tests.datapath.scene import (
    CLIENT,
    CLIENT_LXC,
    CLIENT_MAC,
    FROM_REMOTE,
    REMOTE,
    VIP,
)


def pieces(source, destination, number=7, layer=None):
    packet = IP(src=source, dst=destination, id=number) / (
        layer or UDP(sport=40000, dport=53) / bytes(3000)
    )
    ethernet = Ether(src=CLIENT_MAC, dst=CLIENT_LXC)
    return [bytes(ethernet / piece) for piece in fragment(packet, fragsize=1400)]


FIRST, *LATER = pieces(CLIENT, REMOTE)


def at(offset, length=1400, *, last=True, destination=REMOTE, proto=17, number=7):
    """A later piece by hand: ``offset`` bytes into the datagram."""
    packet = IP(
        src=CLIENT, dst=destination, id=number, proto=proto, frag=offset // 8,
        flags=0 if last else "MF",
    )  # fmt: skip
    return bytes(Ether(src=CLIENT_MAC, dst=CLIENT_LXC) / packet / bytes(length))


ORDERS = {
    "in order": ([FIRST, *LATER], [None, None, None]),
    "the last before the second": ([FIRST, LATER[1], LATER[0]], [None, None, None]),
    "one before the first": ([LATER[0], FIRST], ["DROP_FRAG_NOT_FOUND", None]),
    "the same one twice": ([FIRST, LATER[0], LATER[0]], [None, None, None]),
    "one that overlaps the first": ([FIRST, at(1392)], [None, None]),
    "one that overlaps the first's ports": ([FIRST, at(8)], [None, None]),
    "one beyond what IPv4 can say: the receiver's to refuse": (
        [FIRST, at(65528, 1400)],
        [None, None],
    ),
    "one of another datagram": (
        [FIRST, pieces(CLIENT, REMOTE, 8)[1]],
        [None, "DROP_FRAG_NOT_FOUND"],
    ),
    "ICMP in pieces": (
        pieces(CLIENT, REMOTE, layer=ICMP() / bytes(2000)),
        ["DROP_INVALID", "DROP_INVALID"],
    ),
}


@pytest.mark.parametrize(("packets", "reasons"), ORDERS.values(), ids=ORDERS.keys())
def test_order(scene, packets, reasons):
    results = [scene.run(Hook.FROM_CONTAINER, packet) for packet in packets]
    assert [result.drop_reason for result in results] == reasons


def test_switched_off_every_fragment_is_refused(scenes):
    scene = scenes(enable_ipv4_fragments=False)
    for packet in (FIRST, LATER[0]):
        result = scene.run(Hook.FROM_CONTAINER, packet)
        assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_FRAG_NOSUPPORT")


def test_switched_off_fragments_are_refused_at_the_receiver_too(scenes):
    scene = scenes(enable_ipv4_fragments=False)
    result = scene.run(Hook.FROM_OVERLAY, pieces(REMOTE, CLIENT)[0], tunnel=FROM_REMOTE)
    assert result.drop_reason == "DROP_FRAG_NOSUPPORT"


def test_all_pieces_reach_one_backend(scene):
    scene.service(VIP, 53, [(REMOTE, 5353), ("10.0.2.11", 5353)], 1, protocol=17)
    sent = [scene.run(Hook.FROM_CONTAINER, packet) for packet in pieces(CLIENT, VIP)]
    assert {result.verdict for result in sent} <= {Verdict.REDIRECT, Verdict.PASS}
    assert len({Ether(result.packet)[IP].dst for result in sent} - {VIP}) == 1
    assert VIP not in {Ether(result.packet)[IP].dst for result in sent}


def test_all_pieces_of_an_answer_come_from_the_service(scene):
    scene.service(VIP, 53, [(REMOTE, 5353)], 1, protocol=17)
    scene.run(Hook.FROM_CONTAINER, pieces(CLIENT, VIP)[0])
    answer = pieces(REMOTE, CLIENT, layer=UDP(sport=5353, dport=40000) / bytes(3000))
    back = [scene.deliver(packet) for packet in answer]
    assert {Ether(result.packet)[IP].src for result in back} == {VIP}


def test_policy_judges_later_pieces_by_the_firsts_port(scenes):
    scene = scenes(enable_policy=True)
    scene.map("cilium_policy").map.clear()
    scene.allow(258, egress=True, protocol=17, port=53)
    assert not [p for p in [FIRST, *LATER] if scene.run(Hook.FROM_CONTAINER, p).drop_reason]
    other = pieces(CLIENT, REMOTE, 9, UDP(sport=40000, dport=54) / bytes(3000))
    reasons = {scene.run(Hook.FROM_CONTAINER, packet).drop_reason for packet in other}
    assert reasons == {"DROP_POLICY"}


def test_an_overlapping_first_piece_with_another_port_is_judged_by_its_own(scenes):
    """Who gets a piece in by an allowed port cannot get another in by overlapping it."""
    scene = scenes(enable_policy=True)
    scene.map("cilium_policy").map.clear()
    scene.allow(258, egress=True, protocol=17, port=53)
    forbidden = pieces(CLIENT, REMOTE, 9, UDP(sport=40000, dport=54) / bytes(3000))[0]
    allowed = pieces(CLIENT, REMOTE, 9)[0]
    assert scene.run(Hook.FROM_CONTAINER, allowed).drop_reason is None
    assert scene.run(Hook.FROM_CONTAINER, forbidden).drop_reason == "DROP_POLICY"


@pytest.mark.parametrize("length", range(0, 20, 8))
def test_a_first_piece_too_short_for_its_ports_and_flags_is_refused(scene, length):
    packet = IP(src=CLIENT, dst=REMOTE, id=7, proto=6, flags="MF") / bytes(length)
    result = scene.run(Hook.FROM_CONTAINER, bytes(Ether(src=CLIENT_MAC, dst=CLIENT_LXC) / packet))
    assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_CT_INVALID_HDR")
