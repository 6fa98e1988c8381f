"""Each reason for a step not taken is tried: turn its cause around, and the step is taken."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from lab import Lab, Node, Pod, Topology
from lab.trace import Evidence, Step
from lab.waiting import eventually

pytestmark = pytest.mark.live

TOPOLOGY = Topology(
    name="steps",
    nodes=(Node("alpha"),),
    pods=(Pod("client", node="alpha"), Pod("server", node="alpha")),
)
XDP = """
#include <linux/bpf.h>
__attribute__((section("xdp"), used)) int pass_all(struct xdp_md *ctx) { return XDP_PASS; }
__attribute__((section("drop"), used)) int drop_all(struct xdp_md *ctx) { return XDP_DROP; }
__attribute__((section("ok"), used)) int tc_ok(struct __sk_buff *ctx) { return 0; }
__attribute__((section("shot"), used)) int tc_shot(struct __sk_buff *ctx) { return 2; }
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


@pytest.fixture(scope="module")
def lab():
    with Lab(TOPOLOGY) as lab:
        lab.pod("client").ping(lab.pod("server"))
        yield lab


@pytest.fixture(scope="module")
def xdp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xdp")
    source, target = folder / "x.c", folder / "x.o"
    source.write_text(XDP)
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu", "-c",
         str(source), "-o", str(target)], check=True,
    )  # fmt: skip
    return str(target)


@contextmanager
def changed(place, do, undo):
    for command in do:
        place.run(command.split(), check=True)
    try:
        yield
    finally:
        for command in undo:
            place.run(command.split(), check=True)


def at_server(lab, step, *, sender="client", receiver="server", **shot):
    trace = lab.follow(sender, receiver, **shot).packets[0]
    return min(
        (hop for hop in trace.at(namespace=receiver) if hop.step is step),
        key=lambda hop: hop.evidence.rank,
    )


FILTER = "tc filter add dev eth0 ingress prio 1 handle 1 bpf da obj {xdp} sec "
DRIVER = "ip link set dev eth0 xdpdrv obj {xdp} sec xdp"
DEVICE = {
    "a driver's XDP program": (
        Step.XDP_DRIVER, "no XDP program", [DRIVER],
        ["ip link set dev eth0 xdpdrv off"], Evidence.STACK,
    ),
    "a buffer of the driver's own": (
        Step.CLEAN_RX, "hands over", [DRIVER],
        ["ip link set dev eth0 xdpdrv off"], Evidence.TRACEPOINT,
    ),
    "NAPI and with it GRO": (
        Step.GRO_RECEIVE, "no GRO", [DRIVER],
        ["ip link set dev eth0 xdpdrv off"], Evidence.TRACEPOINT,
    ),
    "a classifier": (
        Step.TC_INGRESS, "no classifier",
        ["tc qdisc add dev eth0 clsact", FILTER + "ok"],
        ["tc qdisc del dev eth0 clsact"], Evidence.PROGRAM,
    ),
    "a chain of the netdev family": (
        Step.NETFILTER_INGRESS, "no netdev chain",
        ["nft add table netdev t",
         "nft add chain netdev t c {{ type filter hook ingress device eth0 priority 0 ; }}"],
        ["nft delete table netdev t"], Evidence.PROGRAM,
    ),
    "an IPsec policy": (
        Step.XFRM_POLICY_L4, "no IPsec policy",
        ["ip xfrm policy add dir in src 0.0.0.0/0 dst 0.0.0.0/0 action allow"],
        ["ip xfrm policy flush"], Evidence.IMPLIED,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "reason", "do", "undo", "evidence"), DEVICE.values(), ids=DEVICE.keys()
)
def test_a_step_is_taken_once_its_cause_is_there(lab, xdp, step, reason, do, undo, evidence):
    before = at_server(lab, step)
    assert before.evidence is Evidence.NOT_TAKEN
    assert reason in before.reason
    with changed(lab.pod("server"), [command.format(xdp=xdp) for command in do], undo):
        after = at_server(lab, step)
    assert after.evidence is evidence
    assert at_server(lab, step).evidence is Evidence.NOT_TAKEN


def test_a_packet_socket_takes_its_copy(lab):
    assert "no packet socket" in at_server(lab, Step.CHECK_TAPS).reason
    listen = (
        "import socket; s = socket.socket(17, 3, 768); s.bind(('eth0', 0)); s.settimeout(2)\n"
        "while True: s.recv(9999)"
    )
    server = lab.pod("server")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(server.run, ["timeout", "4", sys.executable, "-c", listen])
        hop = eventually(lambda: taken(lab, Step.CHECK_TAPS), what="a tap sees the packet")
        done.result()
    assert hop.evidence is Evidence.TRACEPOINT


def taken(lab, step):
    hop = at_server(lab, step)
    return hop if hop.taken else None


DROPS = {
    "XDP drops in the driver": (
        ["ip link set dev eth0 xdpdrv obj {xdp} sec drop"],
        ["ip link set dev eth0 xdpdrv off"], Step.XDP_DRIVER,
    ),
    "a classifier drops": (
        ["tc qdisc add dev eth0 clsact", FILTER + "shot"],
        ["tc qdisc del dev eth0 clsact"], Step.TC_INGRESS,
    ),
    "a chain on ingress drops": (
        ["nft add table netdev t",
         "nft add chain netdev t c {{ type filter hook ingress device eth0 priority 0 ; "
         "policy drop ; }}"],
        ["nft delete table netdev t"], Step.NETFILTER_INGRESS,
    ),
    "a chain in prerouting drops": (
        ["nft add table ip t",
         "nft add chain ip t c {{ type filter hook prerouting priority 0 ; policy drop ; }}"],
        ["nft delete table ip t"], Step.NETFILTER_PREROUTING,
    ),
    "a chain in input drops": (
        ["nft add table ip t",
         "nft add chain ip t c {{ type filter hook input priority 0 ; policy drop ; }}"],
        ["nft delete table ip t"], Step.IP_LOCAL_DELIVER,
    ),
    "an IPsec policy blocks UDP": (
        ["ip xfrm policy add dir in src 0.0.0.0/0 dst 0.0.0.0/0 action block"],
        ["ip xfrm policy flush"], Step.XFRM_POLICY_L4,
    ),
    "the sender's address is the receiver's own": (
        ["ip addr add {client}/32 dev lo"], ["ip addr del {client}/32 dev lo"], Step.IP_ROUTING,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("do", "undo", "step"), DROPS.values(), ids=DROPS.keys())
def test_a_drop_is_shown_where_it_happens_and_nowhere_else(lab, xdp, do, undo, step):
    values = {"xdp": xdp, "client": lab.pod("client").address}
    commands = [[command.format(**values) for command in part] for part in (do, undo)]
    with changed(lab.pod("server"), *commands):
        trace = lab.follow("client", "server").packets[0]
    (drop,) = trace.drops
    assert (drop.namespace, drop.step) == ("server", step)
    assert drop.drop_reason
    assert not trace.delivered
    assert lab.follow("client", "server").packets[0].delivered


def test_an_early_socket_makes_routing_unnecessary(lab):
    hop = at_server(lab, Step.IP_ROUTING, protocol="tcp", port=5003)
    assert "found early" in hop.reason
    assert at_server(lab, Step.IP_ROUTING).taken


def test_another_protocol_is_checked_by_ipsec_at_step_15(lab):
    assert "makes its IPsec check later" in at_server(lab, Step.XFRM_POLICY).reason


GENERIC = ["ip link set dev eth0 xdpgeneric obj {xdp} sec xdp"]
GENERIC_OFF = ["ip link set dev eth0 xdpgeneric off"]


def test_generic_xdp_sees_what_nobody_redirected(lab, xdp):
    places = {"sender": "world", "receiver": "alpha"}
    assert "no generic XDP" in at_server(lab, Step.GENERIC_XDP, **places).reason
    with changed(lab.node("alpha"), [command.format(xdp=xdp) for command in GENERIC], GENERIC_OFF):
        assert at_server(lab, Step.GENERIC_XDP, **places).taken


def test_generic_xdp_is_not_claimed_for_a_redirected_packet(lab, xdp):
    drop = [command.format(xdp=xdp).replace("sec xdp", "sec drop") for command in GENERIC]
    with changed(lab.pod("server"), drop, GENERIC_OFF):
        trace = lab.follow("client", "server").packets[0]
    (hop,) = (h for h in trace.at(namespace="server") if h.step is Step.GENERIC_XDP)
    assert trace.delivered
    assert "redirected" in hop.reason


def test_generic_xdp_drops_on_the_node(lab, xdp):
    drop = [command.format(xdp=xdp).replace("sec xdp", "sec drop") for command in GENERIC]
    with changed(lab.node("alpha"), drop, GENERIC_OFF):
        (seen,) = lab.follow("world", "alpha").packets[0].drops
    assert (seen.step, seen.namespace) == (Step.GENERIC_XDP, "alpha")
