"""A packet beside a flood of others on the same way: nothing is mixed up, losses are counted.

The flood is as fast as this machine makes it (XDP frames injected where the client's own packets
come in) and differs from the packet looked for in its port and its cookie alone.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import Node, Pod, Topology
from lab.observe.tracer import Flow, Tracer
from lab.packets import frames, new_cookie, with_cookie
from lab.waiting import eventually
from tests.live.following import acquainted

pytestmark = pytest.mark.live

TOPOLOGY = Topology(
    name="flood",
    nodes=(Node("alpha"), Node("beta")),
    pods=(Pod("client", node="alpha"), Pod("server", node="beta")),
)
PORT, FLOODED = 5000, 5999
GENERATOR = Path(__file__).with_name("live_frames.py")
WAYS_TO_END = ("CPU_BACKLOG", "SOCKET_RCVBUFF", "QDISC_DROP", "FULL_RING")


def received(place):
    words = place.run(["cat", "/proc/net/dev"], check=True).stdout.split("eth0:")[1].split()
    return int(words[1])


def ports_of(trace):
    return {trace.packet.source_port, trace.packet.destination_port}


@contextmanager
def flooded(lab, folder):
    """Flood the way from client to server meanwhile."""
    client, server = lab.pod("client").facts, lab.pod("server")
    frame = frames.udp(
        (client.mac, client.lxc_mac),
        (str(client.address), str(server.address)),
        (4000, FLOODED),
        with_cookie(b"flood", 1),
    )
    stop = folder / "stop"
    command = [sys.executable, str(GENERATOR), str(client.lxc_index), frame.hex(), str(stop)]
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lab.node("alpha").run, command, timeout_s=120)
        before = received(lab.node("beta"))
        try:
            eventually(lambda: received(lab.node("beta")) > before + 10_000, what="the flood")
            yield
        finally:
            stop.touch()
            result = done.result()
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def lab():
    with acquainted(TOPOLOGY) as lab:
        yield lab


def test_the_packet_with_the_cookie_is_followed_alone(lab, tmp_path):
    cookie = new_cookie()
    with flooded(lab, tmp_path), Tracer(lab) as tracer, lab.pod("server").serve_udp(PORT):
        tracer.only_cookie(cookie, sender="client", destination=str(lab.pod("server").address))
        lab.pod("client").send_udp(lab.pod("server"), PORT, cookie=cookie, want_reply=False)
        traces = tracer.traces()
        lost = tracer.lost
    there = [trace for trace in traces if trace.packet.destination_port == PORT]
    assert [trace.packet.cookie for trace in there] == [f"{cookie:016x}"]
    assert there[0].lost == lost
    assert not any(FLOODED in ports_of(trace) for trace in traces)
    tail = cookie.to_bytes(8, "big")
    seen = [hop for hop in there[0].taken if hop.before]
    assert seen
    assert all(hop.before.endswith(tail) for hop in seen)
    reasons = [drop.drop_reason for drop in there[0].drops]
    assert lost or there[0].delivered or set(reasons) <= set(WAYS_TO_END), reasons


def test_a_flow_is_followed_without_the_others_between_the_same_pods(lab, tmp_path):
    flow = Flow(source=str(lab.pod("client").address), destination_port=PORT, protocol=17)
    with flooded(lab, tmp_path), Tracer(lab, stacks=False) as tracer:
        tracer.only_flow(flow, mind=False)
        with lab.pod("server").serve_udp(PORT):
            for _ in range(3):
                lab.pod("client").send_udp(lab.pod("server"), PORT, want_reply=False)
        traces = tracer.traces()
    assert len(traces) >= 3
    assert all(PORT in ports_of(trace) for trace in traces)


def test_what_finds_no_room_is_counted(lab, tmp_path):
    with flooded(lab, tmp_path), Tracer(lab, stacks=False, most_bytes=1 << 18) as tracer:
        tracer.everything()
        eventually(lambda: tracer.clear() or tracer.lost, what="a loss")
        tracer.pause()
        traces = tracer.traces(settle_s=0)
        assert {trace.lost for trace in traces} <= {tracer.lost}
        assert tracer.lost > 0
