"""One fault after the other, each with the answer that is right: place, reason, remedy."""

import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest

from lab import Lab, Options
from lab.observe.recording import Shot
from lab.observe.why import why
from lab.policy.objects import Direction, NetworkPolicy, Selector
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

DROP = 'char l[] __attribute__((section("license"), used)) = "GPL";'
SOURCE = f"""
struct ctx;
__attribute__((section("xdp"), used)) int xdp_drop(struct ctx *ctx) {{ return 1; }}
__attribute__((section("shot"), used)) int tc_drop(struct ctx *ctx) {{ return 2; }}
{DROP}
"""
INGRESS = NetworkPolicy(name="p", pod_selector=Selector.of(app="server"))
EGRESS = replace(
    INGRESS, pod_selector=Selector.of(app="client"), directions=frozenset({Direction.EGRESS})
)
TABLE = "nft add table ip t"
CHAIN = "nft add chain ip t c {{ type filter hook HOOK priority 0 ; policy drop ; }}"
NO_TABLE = ["nft delete table ip t"]
UDP, TCP, ICMP = (Shot(protocol=name, timeout_s=0.3) for name in ("udp", "tcp", "icmp"))


def chain(hook):
    return [TABLE, CHAIN.replace("HOOK", hook)]


# place of the fault, commands, commands back, what is sent -> where, reason, words of the remedy
FAULTS = {
    "nobody listens on the UDP port": (
        "server", [], [], replace(UDP, listen=False), "server/eth0, step 16 udp_rcv", "NO_SOCKET",
        "Start the server",
    ),
    "nobody listens on the TCP port": (
        "server", [], [], replace(TCP, listen=False), "server/eth0, step 16 tcp_v4_rcv",
        "NO_SOCKET", "Start the server",
    ),
    "a rule in the server's prerouting": (
        "server", chain("prerouting"), NO_TABLE, UDP, "step 11 nf_prerouting", "NETFILTER_DROP",
        "nft list ruleset",
    ),
    "a rule in the server's input": (
        "server", chain("input"), NO_TABLE, TCP, "step 14 nf_input", "NETFILTER_DROP", "nft list",
    ),
    "a rule in the client's output": (
        "client", chain("output"), NO_TABLE, UDP, "client", "NETFILTER_DROP", "nft list",
    ),
    "a rule against the tunnel in a node": (
        "beta", chain("input"), NO_TABLE, UDP, "beta/eth0, step 14 nf_input", "NETFILTER_DROP",
        "nft list",
    ),
    "a chain on the server's device": (
        "server",
        ["nft add table netdev t", "nft add chain netdev t c {{ type filter hook ingress "
         "device eth0 priority 0 ; policy drop ; }}"],
        ["nft delete table netdev t"], UDP, "step 9 nf_ingress", "NETFILTER_DROP", "nft list",
    ),
    "an XDP program in the server": (
        "server", ["ip link set dev eth0 xdpdrv obj {object} sec xdp"],
        ["ip link set dev eth0 xdpdrv off"], UDP, "server/eth0, step 2 xdp", "", "bpftool net",
    ),
    "a classifier in the server": (
        "server",
        ["tc qdisc add dev eth0 clsact",
         "tc filter add dev eth0 ingress prio 1 handle 1 bpf da obj {object} sec shot"],
        ["tc qdisc del dev eth0 clsact"], UDP, "server/eth0, step 8 tc_ingress", "TC_INGRESS",
        "tc filter show dev eth0",
    ),
    "an IPsec policy in the server": (
        "server", ["ip xfrm policy add dir in src 0.0.0.0/0 dst 0.0.0.0/0 action block"],
        ["ip xfrm policy flush"], UDP, "step 17 xfrm_policy_l4", "XFRM_POLICY", "ip xfrm policy",
    ),
    "the client has no route": (
        "client", ["ip route del default"],
        ["ip route add default via {router} dev eth0 mtu 1450"], UDP, "client", "ENETUNREACH",
        "ip route",
    ),
    "the client's rules forbid it (IPsec)": (
        "client", ["ip xfrm policy add dir out src 0.0.0.0/0 dst 0.0.0.0/0 action block"],
        ["ip xfrm policy flush"], UDP, "client", "EPERM", "IPsec",
    ),
    "the server owns the client's address": (
        "server", ["ip addr add {client}/32 dev lo"], ["ip addr del {client}/32 dev lo"], UDP,
        "step 13 ip_routing", "IP_LOCAL_SOURCE", "duplicate address",
    ),
    "the datagram is too large": (
        "client", [], [], replace(UDP, payload=bytes(65600)), "client", "EMSGSIZE", "Send less",
    ),
    "a rule against the answer": (
        "client", chain("input"), NO_TABLE, ICMP, "client/eth0, step 14 nf_input",
        "NETFILTER_DROP", "nft list",
    ),
    "a blackhole route in the client": (
        "client", ["ip route add blackhole {server}/32"], ["ip route del blackhole {server}/32"],
        UDP, "client", "EINVAL", "blackhole",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def lab():
    with Lab(replace(topology, options=Options(masquerade="off"))) as lab:
        lab.pod("client").ping(lab.pod("server"))
        yield lab


@pytest.fixture(scope="module")
def values(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    (folder / "x.c").write_text(SOURCE)
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-c", "x.c", "-o", "x.o"], cwd=folder, check=True
    )
    return {
        "object": str(folder / "x.o"),
        "client": lab.pod("client").address,
        "server": lab.pod("server").address,
        "router": lab.pod("client").node.facts.router,
    }


@contextmanager
def fault(place, do, undo, values):
    for command in do:
        place.run(command.format(**values).split(), check=True)
    try:
        yield
    finally:
        for command in undo:
            place.run(command.format(**values).split(), check=True)


@pytest.mark.parametrize(
    ("place", "do", "undo", "shot", "where", "reason", "remedy"), FAULTS.values(), ids=FAULTS.keys()
)
def test_the_right_cause_is_found(lab, values, place, do, undo, shot, where, reason, remedy):
    with fault(lab.place(place), do, undo, values):
        answer = why(lab, "client", "server", shot)
    assert not answer.arrived
    assert answer.known, answer.paragraph
    assert where in answer.where, answer.paragraph
    assert reason in ("", answer.reason), answer.paragraph
    assert remedy in answer.change
    assert why(lab, "client", "server", TCP).arrived


POLICIES = {
    "ingress of the server": (INGRESS, "cilium_policy ingress identity", "from-overlay"),
    "egress of the client": (EGRESS, "cilium_policy egress identity", "from-container"),
}


@pytest.mark.parametrize(("policy", "entry", "hook"), POLICIES.values(), ids=POLICIES.keys())
def test_a_policy_is_named_with_the_entry_that_was_missing(lab, policy, entry, hook):
    lab.apply(policy)
    try:
        answer = why(lab, "client", "server", UDP)
    finally:
        lab.delete(policy)
    assert (answer.reason, answer.hop and answer.hop.hook) == ("POLICY", hook)
    assert entry in answer.entry
    assert "no entry" in answer.entry


WORKS = {"udp": UDP, "tcp": TCP, "icmp": ICMP}


@pytest.mark.parametrize("shot", WORKS.values(), ids=WORKS.keys())
def test_nothing_is_wrong_where_nothing_is_wrong(lab, shot):
    assert why(lab, "client", "server", shot).arrived
