"""Each reason for a step not taken is tried: turn its cause around, and the step is taken."""

import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab import Node, Pod, Topology
from lab.observe.absent import Why
from lab.trace import Evidence, Step
from lab.waiting import eventually
from tests.live.following import acquainted, changed, host_device, polled
from tests.live.objects import compiled

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
    with acquainted(TOPOLOGY) as lab:
        yield lab


@pytest.fixture(scope="module")
def xdp(tmp_path_factory):
    return str(compiled(tmp_path_factory.mktemp("xdp"), "x", XDP))


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
        Step.XDP_DRIVER, Why.NO_XDP, [DRIVER],
        ["ip link set dev eth0 xdpdrv off"], Evidence.STACK,
    ),
    "a buffer of the driver's own": (
        Step.CLEAN_RX, Why.HANDED_OVER, [DRIVER],
        ["ip link set dev eth0 xdpdrv off"], Evidence.TRACEPOINT,
    ),
    "NAPI and with it GRO": (
        Step.GRO_RECEIVE, Why.NO_NAPI, [DRIVER],
        ["ip link set dev eth0 xdpdrv off"], Evidence.TRACEPOINT,
    ),
    "a classifier": (
        Step.TC_INGRESS, Why.NO_CLASSIFIER,
        ["tc qdisc add dev eth0 clsact", FILTER + "ok"],
        ["tc qdisc del dev eth0 clsact"], Evidence.PROGRAM,
    ),
    "a classifier at another priority": (
        Step.TC_INGRESS, Why.NO_CLASSIFIER,
        ["tc qdisc add dev eth0 clsact",
         "tc filter add dev eth0 ingress prio 77 bpf da obj {xdp} sec ok"],
        ["tc qdisc del dev eth0 clsact"], Evidence.PROGRAM,
    ),
    "a classifier that is no program": (
        Step.TC_INGRESS, Why.NO_CLASSIFIER,
        ["tc qdisc add dev eth0 clsact",
         "tc filter add dev eth0 ingress protocol ip u32 match u32 0 0"],
        ["tc qdisc del dev eth0 clsact"], Evidence.PROGRAM,
    ),
    "a chain of the netdev family": (
        Step.NETFILTER_INGRESS, Why.NO_CHAIN,
        ["nft add table netdev t",
         "nft add chain netdev t c {{ type filter hook ingress device eth0 priority 0 ; }}"],
        ["nft delete table netdev t"], Evidence.PROGRAM,
    ),
    "an IPsec policy": (
        Step.XFRM_POLICY_L4, Why.NO_POLICY_L4,
        ["ip xfrm policy add dir in src 0.0.0.0/0 dst 0.0.0.0/0 action allow"],
        ["ip xfrm policy flush"], Evidence.COUNTER,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "why", "do", "undo", "evidence"), DEVICE.values(), ids=DEVICE.keys()
)
def test_a_step_is_taken_once_its_cause_is_there(lab, xdp, step, why, do, undo, evidence):
    before = at_server(lab, step)
    assert before.evidence is Evidence.NOT_TAKEN
    assert why.told(before.reason)
    with changed((lab.pod("server"), [command.format(xdp=xdp) for command in do], undo)):
        after = at_server(lab, step)
    assert after.evidence is evidence
    assert at_server(lab, step).evidence is Evidence.NOT_TAKEN


def test_a_place_for_classifiers_is_none(lab):
    with changed(
        (lab.pod("server"), ["tc qdisc add dev eth0 clsact"], ["tc qdisc del dev eth0 clsact"])
    ):
        assert Why.NO_CLASSIFIER.told(at_server(lab, Step.TC_INGRESS).reason)


def test_a_rule_on_ingress_is_named_as_met(lab):
    """An empty chain says nothing of the packets that it lets pass; one with a rule is traced."""
    do = ["nft add table netdev t",
          "nft add chain netdev t c { type filter hook ingress device eth0 priority 0 ; }",
          "nft add rule netdev t c counter"]  # fmt: skip
    with changed((lab.pod("server"), do, ["nft delete table netdev t"])):
        hop = at_server(lab, Step.NETFILTER_INGRESS)
    assert hop.evidence is Evidence.PROGRAM


STEERED = "enqueue_to_backlog of processor"


def test_receive_packet_steering_names_the_processor_it_chose(lab):
    """Whoever sends may run on any processor: one of the two is another than the chosen one."""
    server = lab.pod("server")
    queue = "/sys/class/net/eth0/queues/rx-0/rps_cpus"

    def steered():
        for mask in ("1", "2"):
            server.run(["sh", "-c", f"echo {mask} > {queue}"], check=True)
            trace = lab.follow("client", "server").packets[0]
            queued, taken = (
                next(hop for hop in trace.at(namespace="server") if hop.hook == hook)
                for hook in ("netif_rx", "receive_skb")
            )
            assert taken.cpu == int(mask) - 1
            assert (queued.cpu != taken.cpu) == queued.reason.startswith(STEERED)
            if queued.cpu != taken.cpu:
                return queued
        return None

    try:
        assert "receive packet steering" in eventually(steered, what="another processor").reason
    finally:
        server.run(["sh", "-c", f"echo 0 > {queue}"], check=True)


def test_a_packet_socket_takes_its_copy(lab):
    assert Why.NO_TAP.told(at_server(lab, Step.CHECK_TAPS).reason)
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
    with changed((lab.pod("server"), *commands)):
        trace = lab.follow("client", "server").packets[0]
    (drop,) = trace.drops
    assert (drop.namespace, drop.step) == ("server", step)
    assert drop.drop_reason
    assert not trace.delivered
    assert lab.follow("client", "server").packets[0].delivered


def test_a_device_with_napi_of_its_own_offers_the_packet_to_gro(lab):
    assert Why.NO_NAPI.told(at_server(lab, Step.GRO_RECEIVE).reason)
    with polled(lab, "server"):
        hop = at_server(lab, Step.GRO_RECEIVE)
        poll = at_server(lab, Step.NAPI_POLL)
    assert (hop.evidence, hop.verdict) == (Evidence.TRACEPOINT, "normal")
    assert "veth_poll" in poll.reason


def test_an_early_socket_makes_routing_unnecessary(lab):
    tcp = {"protocol": "tcp", "port": 5003}
    assert Why.EARLY_SOCKET.told(at_server(lab, Step.IP_ROUTING, **tcp).reason)
    early = "sysctl -qw net.ipv4.tcp_early_demux="
    with changed((lab.pod("server"), [early + "0"], [early + "1"])):
        assert at_server(lab, Step.IP_ROUTING, **tcp).taken


def test_a_segment_without_data_completes_a_connection_and_is_not_queued(lab):
    """Of the same connection, the segment with data is."""
    data, *others = lab.follow("client", "server", protocol="tcp", port=5004).packets
    last = next(t for t in others if any(hop.verdict == "accepted" for hop in t.hops))
    assert Why.NO_DATA.told(the_step(last, Step.RECEIVE_QUEUE, "server").reason)
    assert the_step(data, Step.RECEIVE_QUEUE, "server").taken


BURST = """
import socket, sys
s = socket.socket(2, 2)
s.setsockopt(17, 103, 100)
s.sendto(b"".join(bytes([65 + k]) * 100 for k in range(4)), (sys.argv[1], 5009))
"""


def burst(lab):
    """The look-ups of four datagrams that come in one list, cut from one send (UDP GSO)."""
    client, server = lab.pod("client"), lab.pod("server")
    with lab.trace() as recording, server.serve_udp(5009):
        client.run([sys.executable, "-c", BURST, str(server.address)], check=True)
    ours = [t for t in recording.packets if t.packet.destination_port == 5009]
    pieces = [t for t in ours if t.steps("server")]
    return [hop for t in pieces for hop in t.at(namespace="server") if hop.step is Step.IP_ROUTING]


def test_packets_of_one_list_are_routed_once(lab):
    """A rule of one's own may send each another way: then each is looked up."""
    server = lab.pod("server")
    cut = f"ethtool -K {host_device(lab, 'server')} tx-udp-segmentation "
    rule = "ip rule {} from all lookup main pref 100"
    with (
        polled(lab, "server"),
        changed((lab.node("alpha"), cut + "off", cut + "on")),
    ):
        first, *others = eventually(lambda: burst(lab), what="the burst comes")
        assert first.taken
        assert others
        assert all(Why.ROUTE_HINT.told(hop.reason) for hop in others)
        with changed((server, [rule.format("add")], [rule.format("del")])):
            assert all(hop.taken for hop in burst(lab))


INJECT = """
import fcntl, os, struct, subprocess, sys
fd = os.open("/dev/net/tun", os.O_RDWR)
flags = 1 | 0x1000 | (0x10 if sys.argv[1] == "napi" else 0)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"tun0", flags))
for command in ("ip addr add 10.99.0.2/24 dev tun0", "ip link set tun0 up"):
    subprocess.run(command.split(), check=True)
os.write(fd, bytes.fromhex(sys.argv[2]))
"""
UDP = struct.pack("!HHHH", 4000, 5010, 13, 0) + b"hello"
IGMP = bytes((0x11, 100, 0xEE, 0x9B)) + bytes(4)  # a general query and its checksum


def handed_in(lab, protocol, body, *, napi=False):
    """The trace of a packet that a process in the server's pod puts into a device of its own."""
    ends = socket.inet_aton("10.99.0.1") + socket.inet_aton("10.99.0.2")
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 77, 0, 64, protocol, 0) + ends
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    packet = head[:10] + struct.pack("!H", 0xFFFF - total) + head[12:] + body
    mode = "napi" if napi else "plain"
    with lab.trace() as recording, lab.pod("server").serve_udp(5010):
        lab.pod("server").run([sys.executable, "-c", INJECT, mode, packet.hex()], check=True)
    return next(t for t in recording.packets if t.packet.source == "10.99.0.1")


def the_step(trace, step, namespace=None):
    found = (hop for hop in trace.at(namespace=namespace) if hop.step is step)
    return min(found, key=lambda hop: hop.evidence.rank)


def test_a_packet_that_a_system_call_hands_in_comes_without_a_poll(lab):
    plain = the_step(handed_in(lab, 17, UDP), Step.NAPI_POLL)
    polled = the_step(handed_in(lab, 17, UDP, napi=True), Step.NAPI_POLL)
    assert Why.NO_POLL.told(plain.reason)
    assert polled.taken
    assert "tun_napi_poll" in polled.reason


def test_a_protocol_that_does_not_check_itself_is_checked_by_ipsec_at_step_15(lab):
    """UDP leaves the check to itself; IGMP does not, and meets a policy here if there is one."""
    block = "ip xfrm policy add dir in src 0.0.0.0/0 dst 0.0.0.0/0 action block"
    assert Why.CHECKED_LATER.told(at_server(lab, Step.XFRM_POLICY).reason)
    free = handed_in(lab, 2, IGMP)
    assert free.drops == ()
    assert Why.NO_POLICY.told(the_step(free, Step.XFRM_POLICY).reason)
    with changed((lab.pod("server"), [block], ["ip xfrm policy flush"])):
        (drop,) = handed_in(lab, 2, IGMP).drops
    assert (drop.step, drop.drop_reason) == (Step.XFRM_POLICY, "XFRM_POLICY")


def test_prerouting_without_a_chain_is_passed_by(lab):
    """A light trace puts no program of its own there."""
    client, server = lab.pod("client"), lab.pod("server")

    def prerouting():
        with lab.trace(stacks=False) as recording, server.serve_udp(5011):
            client.send_udp(server, 5011)
        trace = recording.of("udp", sender="client")
        hops = (h for h in trace.at(namespace="server") if h.step is Step.NETFILTER_PREROUTING)
        return next(hops)

    do = ["nft add table ip t",
          "nft add chain ip t c { type filter hook prerouting priority 0 ; }"]  # fmt: skip
    assert Why.NO_PREROUTING.told(prerouting().reason)
    with changed((server, do, ["nft delete table ip t"])):
        assert prerouting().taken


GENERIC = ["ip link set dev eth0 xdpgeneric obj {xdp} sec xdp"]
GENERIC_OFF = ["ip link set dev eth0 xdpgeneric off"]


def test_generic_xdp_sees_what_nobody_redirected(lab, xdp):
    places = {"sender": "world", "receiver": "alpha"}
    assert Why.NO_GENERIC_XDP.told(at_server(lab, Step.GENERIC_XDP, **places).reason)
    with changed(
        (lab.node("alpha"), [command.format(xdp=xdp) for command in GENERIC], GENERIC_OFF)
    ):
        hop = at_server(lab, Step.GENERIC_XDP, **places)
    assert (hop.evidence, hop.program) == (Evidence.COUNTER, "pass_all")


def test_generic_xdp_is_not_claimed_for_a_redirected_packet(lab, xdp):
    drop = [command.format(xdp=xdp).replace("sec xdp", "sec drop") for command in GENERIC]
    with changed((lab.pod("server"), drop, GENERIC_OFF)):
        trace = lab.follow("client", "server").packets[0]
    (hop,) = (h for h in trace.at(namespace="server") if h.step is Step.GENERIC_XDP)
    assert trace.delivered
    assert Why.NOT_AGAIN.told(hop.reason)


def test_generic_xdp_drops_on_the_node(lab, xdp):
    drop = [command.format(xdp=xdp).replace("sec xdp", "sec drop") for command in GENERIC]
    with changed((lab.node("alpha"), drop, GENERIC_OFF)):
        (seen,) = lab.follow("world", "alpha").packets[0].drops
    assert (seen.step, seen.namespace) == (Step.GENERIC_XDP, "alpha")
