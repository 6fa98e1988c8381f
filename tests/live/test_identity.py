"""A packet stays itself through every change of buffer, and nothing else becomes it."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lab import Lab, Node, Pod, Topology
from lab.errors import CheckFailed
from lab.model import Options
from lab.observe.absent import Why
from lab.observe.tracer import Flow
from lab.packets import new_cookie, with_cookie
from lab.trace import Step, Tie
from lab.waiting import eventually
from tests.live.following import buffers, changed, facts, host_device, one_packet, polled

pytestmark = pytest.mark.live

TOPOLOGY = Topology(
    name="identity",
    nodes=(Node("alpha"), Node("beta")),
    pods=(
        Pod("client", node="alpha"),
        Pod("server", node="alpha"),
        Pod("relay", node="alpha"),
        Pod("far", node="beta"),
    ),
)
LARGE = b"x" * 60_000
PROGRAMS = """
#include <linux/bpf.h>
#define SEC(name) __attribute__((section(name), used))
static long (*redirect)(__u32, __u64) = (void *)23;
static long (*clone_redirect)(void *, __u32, __u64) = (void *)13;
SEC("pass") int do_pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("back") int do_back(struct xdp_md *ctx) { return XDP_TX; }
SEC("onward") int do_onward(struct xdp_md *ctx) { return redirect(TO, 0); }
SEC("clone") int do_clone(struct __sk_buff *ctx) { clone_redirect(ctx, TO, 0); return 0; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def lab():
    with Lab(TOPOLOGY) as lab:
        for name in ("server", "relay", "far"):
            lab.pod("client").ping(lab.pod(name))
        yield lab


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity")

    def build(to: int = 2) -> str:
        source, target = folder / "x.c", folder / f"x{to}.o"
        source.write_text(PROGRAMS)
        subprocess.run(
            ["clang", "-O2", "-g", "-target", "bpf", f"-DTO={to}",
             "-I/usr/include/x86_64-linux-gnu", "-c", str(source), "-o", str(target)], check=True,
        )  # fmt: skip
        return str(target)

    return build


def test_equal_datagrams_of_equal_flows_are_as_many_packets_as_tcpdump_counts(lab, tmp_path):
    """Same ports, same payload, no identification: nothing in them tells them apart."""
    client, far = lab.pod("client"), lab.pod("far")
    script = (
        "import socket, sys\n"
        "s = [socket.socket(2, 2) for _ in 'ab']\n"
        "for k, one in enumerate(s): one.bind(('', 6000 + k))\n"
        "for _ in range(5):\n"
        "    for one in s: one.sendto(b'the very same', (sys.argv[1], 6100))\n"
    )
    said = tmp_path / "said"
    dump = f"exec tcpdump -ni {host_device(lab, 'far')} -c 10 udp dst port 6100 2>{said}"
    with ThreadPoolExecutor(1) as pool, far.serve_udp(6100), lab.trace() as recording:
        dumped = pool.submit(lab.node("beta").run, ["sh", "-c", dump], timeout_s=10)
        eventually(
            lambda: (said.exists() and "listening on" in said.read_text()) or None,
            what="tcpdump listens",
        )
        client.run([sys.executable, "-c", script, str(far.address)], check=True)
        lines = dumped.result().stdout.splitlines()
    ours = [t for t in recording.packets if t.packet.destination_port == 6100]
    assert len(lines) == len(ours) == 10
    assert Counter(t.packet.source_port for t in ours) == {6000: 5, 6001: 5}
    for trace in ours:
        ends = [hop for hop in trace.hops if hop.step is Step.DATA_READY and hop.taken]
        assert len(ends) == 1, trace.packet
        ports = {hop.before[-21:-19] for hop in trace.taken if hop.before and len(hop.before) > 40}
        assert len(ports) == 1, "lines of two flows in one trace"


def test_native_xdp_gives_the_packet_another_buffer(lab, compiled):
    server = lab.pod("server")
    attach = f"ip link set dev eth0 xdpdrv obj {compiled()} sec pass"
    with changed((server, attach, "ip link set dev eth0 xdpdrv off")):
        trace = one_packet(lab)
    assert trace.delivered
    assert len(set(buffers(trace))) == 2
    assert {Step.XDP_DRIVER, Step.CLEAN_RX, Step.DATA_READY} <= set(trace.steps("server"))


def test_a_frame_that_xdp_sends_back_is_met_where_it_came_from(lab, compiled):
    server, node = lab.pod("server"), lab.node("alpha")
    device = host_device(lab, "server")
    with changed(
        # veth polls for a frame that was sent back only where there is a program too
        (node, f"ip link set dev {device} xdpdrv obj {compiled()} sec pass",
         f"ip link set dev {device} xdpdrv off"),
        (server, f"ip link set dev eth0 xdpdrv obj {compiled()} sec back",
         "ip link set dev eth0 xdpdrv off"),
    ):  # fmt: skip
        trace = one_packet(lab, listen=False)
    visits = [hop.device for hop in trace.hops if hop.step is Step.RECEIVE_SKB and hop.taken]
    assert visits == [host_device(lab, "client"), device]
    (drop,) = trace.drops
    assert (drop.device, drop.program) == (device, "cil_from_container")


def test_a_frame_that_xdp_redirects_is_met_in_the_other_pod(lab, compiled):
    """The redirecting device is the node's end of the client; the server must have NAPI."""
    client, server, node = lab.pod("client"), lab.pod("server"), lab.node("alpha")
    incoming = host_device(lab, "client")
    number, target = facts(lab, "server").lxc_index, facts(lab, "server").mac
    with changed(
        (client, "ethtool -K eth0 tx off", "ethtool -K eth0 tx on"),
        (server, "ethtool -K eth0 gro on", "ethtool -K eth0 gro off"),
        (client, f"ip neigh replace {server.address} lladdr {target} dev eth0",
         f"ip neigh del {server.address} dev eth0"),
        (client, f"ip route add {server.address} dev eth0", f"ip route del {server.address}"),
        (node, f"ip link set dev {incoming} xdpdrv obj {compiled(number)} sec onward",
         f"ip link set dev {incoming} xdpdrv off"),
    ):  # fmt: skip
        trace = one_packet(lab)
    redirect = next(hop for hop in trace.hops if hop.step is Step.XDP_DRIVER and hop.taken)
    assert (redirect.device, redirect.verdict) == (incoming, "redirect")
    assert not [hop for hop in trace.taken if hop.program == "cil_from_container"]
    assert trace.delivered
    assert len(set(buffers(trace))) >= 2


def test_a_clone_is_another_packet_and_says_of_which(lab, compiled):
    server = lab.pod("server")
    with changed(
        (server, "tc qdisc add dev eth0 clsact", "tc qdisc del dev eth0 clsact"),
        (server, f"tc filter add dev eth0 ingress bpf da obj {compiled(2)} sec clone",
         "tc filter del dev eth0 ingress"),
    ):  # fmt: skip
        recording = lab.follow("client", "server")
    original = recording.packets[0]
    (clone,) = (t for t in recording.packets if any("clone of" in tie for tie in t.ties))
    assert original.delivered
    assert original.drops == ()
    assert clone.relations[0].packet == original.packet.number
    assert clone.taken[0].device == "eth0"


def recorded_tcp(lab, to, payload):
    """A connection with one large send, and what tcpdump counted of it on the node's end."""
    client, server = lab.pod("client"), lab.pod(to)
    flow = Flow(source=str(client.address), destination=str(server.address), protocol=6)
    with lab.trace(flow=flow) as recording, server.serve_tcp(5007):
        assert client.connect(server.address, 5007, payload=payload).ok
    assert recording.lost == 0
    there = [t for t in recording.packets if t.packet.destination_port == 5007]
    return recording, there


def test_a_large_send_is_told_with_the_segments_it_was_cut_into(lab):
    client = lab.pod("client")
    with changed((client, "ethtool -K eth0 tso off", "ethtool -K eth0 tso on")):
        recording, there = recorded_tcp(lab, "server", LARGE)
    numbers = {t.packet.number: t for t in recording.packets}
    parents = [t for t in there if any(r.tie is Tie.SPLIT_INTO for r in t.relations)]
    assert parents
    pieces = 0
    for parent in parents:
        children = [numbers[r.packet] for r in parent.relations if r.tie is Tie.SPLIT_INTO]
        assert parent.taken[-1].hook == "gso_segment"
        assert not any(child.drops for child in children)
        # 40 bytes of headers and 12 of options; the pieces' payloads are the parent's
        payload = sum(child.packet.length - 14 - 52 for child in children)
        assert payload == parent.packet.length - 52
        pieces += len(children)
    sizes = {child.packet.length for child in there if any("segment" in t for t in child.ties)}
    assert max(sizes) <= 1514
    assert pieces >= len(LARGE) // 1448


def test_what_gro_merges_is_told_with_the_packet_it_is_in(lab):
    whole = (lab.pod("client"), "ethtool -K eth0 tso off", "ethtool -K eth0 tso on")
    with polled(lab, "server"), changed(whole):
        _, there = recorded_tcp(lab, "server", LARGE)
    merged = [t for t in there if any(r.tie is Tie.MERGED_INTO for r in t.relations)]
    assert merged
    assert not any(t.delivered for t in merged)
    wholes = {t.packet.number: t for t in there if any(r.tie is Tie.MADE_OF for r in t.relations)}
    assert {t.relations[-1].packet for t in merged} == set(wholes)
    # one that comes while a system call owns the socket waits in its backlog, unreported
    assert any(whole.delivered for whole in wholes.values())
    for whole in wholes.values():
        assert not whole.drops
        parts = sum(r.tie is Tie.MADE_OF for r in whole.relations)
        (after,) = (hop.length for hop in whole.taken
                    if hop.step is Step.RECEIVE_SKB and hop.namespace == "server")  # fmt: skip
        payloads = [t.packet.length - 66 for t in merged
                    if t.relations[-1].packet == whole.packet.number]  # fmt: skip
        assert len(payloads) == parts
        assert after == whole.packet.length + sum(payloads)


RELAY = """
import socket, sys
with socket.create_server(("", 7000)) as listener:
    one, _ = listener.accept()
    data = one.recv(9999)
    with one, socket.create_connection((sys.argv[1], 7001)) as other:
        other.sendall(data)
        one.sendall(other.recv(9999))
"""


def test_a_proxys_second_connection_is_told_as_caused_by_the_first(lab):
    client, relay, server = (lab.pod(name) for name in ("client", "relay", "server"))
    cookie = new_cookie()
    with ThreadPoolExecutor(1) as pool, lab.trace() as recording, server.serve_tcp(7001):
        done = pool.submit(relay.run, [sys.executable, "-c", RELAY, str(server.address)])
        payload = with_cookie(b"question", cookie)
        eventually(
            lambda: client.connect(relay.address, 7000, payload=payload).ok or None,
            what="the relay listens and answers",
        )
        done.result()
    bearers = [t for t in recording.packets if t.packet.cookie == f"{cookie:016x}"]
    ways = [(t.packet.sender, t.packet.receiver) for t in bearers]
    assert ways == [("client", "relay"), ("relay", "server"), ("server", "relay"),
                    ("relay", "client")]  # fmt: skip
    first, second, third, last = bearers
    related = [(t.relations[0].tie, t.relations[0].packet) for t in (second, third, last)]
    assert related == [
        (Tie.CAUSED_BY, first.packet.number),
        (Tie.ANSWER_TO, second.packet.number),
        (Tie.ANSWER_TO, first.packet.number),
    ]
    assert all(relation.reason.startswith("content") for t in bearers for relation in t.relations)


def test_a_translated_packet_keeps_its_name(lab):
    client, server = lab.pod("client"), lab.pod("server")
    rule = f"nft add rule ip moved c ip daddr 10.9.9.9 dnat to {server.address}"
    chain = "nft add chain ip moved c { type nat hook output priority -100 ; }"
    with changed((client, "nft add table ip moved", "nft delete table ip moved")):
        client.run(chain.split(), check=True)
        client.run(rule.split(), check=True)
        with server.serve_udp(5000):
            trace = one_packet(lab, to="10.9.9.9")
    assert trace.delivered
    assert trace.packet.destination == "10.9.9.9"
    trace.expect().rewritten(destination=str(server.address))


WAYS = {
    "the stack of the node": ("legacy", False),
    "a redirect to the peer and to the neighbour": ("bpf", True),
}


@pytest.mark.parametrize(("routing", "past"), WAYS.values(), ids=WAYS.keys())
def test_a_redirected_packet_keeps_its_buffer(routing, past):
    topology = Topology(
        name=f"identity-{routing}",
        nodes=(Node("alpha"), Node("beta")),
        pods=(Pod("client", node="alpha"), Pod("far", node="beta")),
        options=Options(host_routing=routing, routing="native"),
    )
    with Lab(topology) as lab:
        lab.pod("client").ping(lab.pod("far"))
        trace = one_packet(lab, to="far")
    assert trace.delivered
    assert len(set(buffers(trace))) == 1
    arrived = [hop for hop in trace.at(namespace="far") if hop.step is Step.RECEIVE_SKB]
    assert any(Why.REDIRECTED.told(hop.reason) for hop in arrived) == past


def test_a_recording_with_losses_is_believed_by_no_statement(lab):
    trace = replace(one_packet(lab), lost=1)
    with pytest.raises(CheckFailed, match="lost"):
        trace.expect().delivered()
