"""One send of many datagrams (UDP_SEGMENT) is told with each of them, wherever it is cut."""

import ast
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab import Lab, Node, Pod, Topology
from lab.observe.absent import Why
from lab.observe.tracer import Flow
from lab.trace import Step, Tie
from lab.waiting import eventually
from tests.live.following import changed, polled

pytestmark = pytest.mark.live

TOPOLOGY = Topology(
    name="identity-udp",
    nodes=(Node("alpha"), Node("beta")),
    pods=(
        Pod("client", node="alpha"), Pod("server", node="alpha"), Pod("far", node="beta"),
    ),
)  # fmt: skip
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT
    for letter in "ab":
        s.sendto(b"".join(f"{letter}{k}".encode() * 500 for k in range(4)) + b"the end",
                 (sys.argv[1], 6100))
"""
RECEIVE = """
import pathlib, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", 6100))
    s.settimeout(5)
    s.setsockopt(socket.IPPROTO_UDP, 104, int(sys.argv[1]))  # UDP_GRO
    pathlib.Path(sys.argv[2]).touch()
    came = []
    while b"".join(came).count(b"the end") < 2:
        came.append(s.recv(65535))
print([(len(one), one[:2].decode()) for one in came])
"""
DATAGRAMS = [(1000, f"{letter}{k}") if k < 4 else (7, "th") for letter in "ab" for k in range(5)]
CUT = "ethtool -K {} tx-udp-segmentation off", "ethtool -K {} tx-udp-segmentation on"


@pytest.fixture(scope="module")
def lab():
    with Lab(TOPOLOGY) as lab:
        for name in ("server", "far"):
            lab.pod("client").ping(lab.pod(name))
        yield lab


def two_sends(lab, tmp_path, to="server", gro=False):
    """The traces on the way there, and what the receiver says it got."""
    client, goal = lab.pod("client"), lab.pod(to)
    ready = tmp_path / "ready"
    flow = Flow(destination=str(goal.address), destination_port=6100, protocol=17)
    with ThreadPoolExecutor(1) as pool, lab.trace(flow=flow) as recording:
        got = pool.submit(
            goal.run, [sys.executable, "-c", RECEIVE, str(int(gro)), str(ready)], check=True
        )
        eventually(ready.exists, what="the receiver listens")
        client.run([sys.executable, "-c", SEND, str(goal.address)], check=True)
        came = ast.literal_eval(got.result().stdout)
    assert recording.lost == 0
    return recording.packets, came


def families(packets):
    """The large packets with their pieces, in order; nothing else may have come."""
    numbers = {trace.packet.number: trace for trace in packets}
    parents = [t for t in packets if any(r.tie is Tie.SPLIT_INTO for r in t.relations)]
    family = [
        (t, [numbers[r.packet] for r in t.relations if r.tie is Tie.SPLIT_INTO]) for t in parents
    ]
    assert len(packets) == len(parents) + sum(len(pieces) for _, pieces in family)
    return family


def test_a_send_that_its_receiver_cuts_begins_anew_in_the_transport(lab, tmp_path):
    """veth carries it whole: the socket's side of UDP makes datagrams of it."""
    packets, came = two_sends(lab, tmp_path)
    family = families(packets)
    assert came == DATAGRAMS
    assert [len(pieces) for _, pieces in family] == [5, 5]
    for parent, pieces in family:
        last = parent.taken[-1]
        assert (last.hook, last.verdict, last.namespace) == ("gso_segment", "split", "server")
        assert not parent.drops
        for piece in pieces:
            assert piece.delivered
            before = [hop for hop in piece.hops if hop.step and hop.step < Step.L4_RECEIVE]
            assert all(Why.CUT_OUT.told(hop.reason) for hop in before)
    lengths = [piece.packet.length - 42 for _, pieces in family for piece in pieces]
    assert lengths == [length for length, _ in came]


CUT_AT = {
    "by the sender's device": ("client", "eth0", "server"),
    "by the sender's device, for another node": ("client", "eth0", "far"),
    "inside the tunnel, by the node's device": ("alpha", "eth0", "far"),
}


@pytest.mark.parametrize(("place", "device", "to"), CUT_AT.values(), ids=CUT_AT.keys())
def test_a_send_that_is_cut(lab, tmp_path, place, device, to):
    off, on = (line.format(device) for line in CUT)
    tunnel = " tx-udp_tnl-segmentation {0} tx-udp_tnl-csum-segmentation {0}"
    with changed((lab.place(place), off + tunnel.format("off"), on + tunnel.format("on"))):
        packets, came = two_sends(lab, tmp_path, to)
    family = families(packets)
    assert came == DATAGRAMS
    assert [len(pieces) for _, pieces in family] == [5, 5]
    for parent, pieces in family:
        cut = parent.taken[-1]
        assert (cut.hook, cut.namespace, cut.device) == ("gso_segment", place, device)
        assert all(piece.delivered and piece.taken[0].namespace == place for piece in pieces)


def test_datagrams_that_gro_merges_are_told_with_the_packet_they_are_in(lab, tmp_path):
    """Only a socket that asks for it (UDP_GRO) gets them as one."""
    off, on = (line.format("eth0") for line in CUT)
    with polled(lab, "server"), changed((lab.pod("client"), off, on)):
        packets, came = two_sends(lab, tmp_path, gro=True)
    wholes = [t for t in packets if any(r.tie is Tie.MADE_OF for r in t.relations)]
    merged = [t for t in packets if any(r.tie is Tie.MERGED_INTO for r in t.relations)]
    assert wholes
    assert not any(t.delivered for t in merged)
    for whole in wholes:
        mine = [t for t in merged if t.relations[-1].packet == whole.packet.number]
        (after,) = (hop.length for hop in whole.taken
                    if hop.step is Step.RECEIVE_SKB and hop.namespace == "server")  # fmt: skip
        assert after == whole.packet.length + sum(t.packet.length - 42 for t in mine)
    arrived = [t for t in packets if t.delivered]
    assert len(arrived) == len(came)


def test_a_socket_that_asks_gets_the_send_as_it_was(lab, tmp_path):
    packets, came = two_sends(lab, tmp_path, gro=True)
    assert came == [(4007, "a0"), (4007, "b0")]
    assert [t.packet.length for t in packets] == [4007 + 28] * 2
    assert all(t.delivered and not t.relations for t in packets)
