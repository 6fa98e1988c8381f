"""One fault after the other, each with the answer that is right: place, reason, remedy."""

import subprocess
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lab import Options, Service, ServicePort
from lab.datapath.build import SOURCES, build
from lab.observe.recording import Shot
from lab.observe.why import why
from lab.policy.objects import (
    CiliumPolicy,
    CiliumRule,
    Direction,
    NetworkPolicy,
    NetworkRule,
    Peer,
    Port,
    Selector,
)
from lab.waiting import eventually
from tests.live.following import acquainted
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

DROP = 'char l[] __attribute__((section("license"), used)) = "GPL";'
SOURCE = f"""
struct ctx;
static long (*redirect)(unsigned int ifindex, unsigned long flags) = (void *)23;
__attribute__((section("xdp"), used)) int xdp_drop(struct ctx *ctx) {{ return 1; }}
__attribute__((section("back"), used)) int xdp_back(struct ctx *ctx) {{ return 3; }}
__attribute__((section("shot"), used)) int tc_drop(struct ctx *ctx) {{ return 2; }}
__attribute__((section("keep"), used)) int tc_keep(struct ctx *ctx) {{ return 4; }}
__attribute__((section("trap"), used)) int tc_trap(struct ctx *ctx) {{ return 8; }}
__attribute__((section("lead"), used)) int tc_lead(struct ctx *ctx) {{ return redirect(4242, 0); }}
{DROP}
"""
INGRESS = NetworkPolicy(name="p", pod_selector=Selector.of(app="server"))
EGRESS = replace(
    INGRESS, pod_selector=Selector.of(app="client"), directions=frozenset({Direction.EGRESS})
)
TABLE = "nft add table ip t"
CHAIN = "nft add chain ip t c {{ type filter hook HOOK priority 0 ; policy drop ; }}"
NAT = "nft add chain ip t c {{ type nat hook prerouting priority dstnat ; }}"
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
    "a classifier on the cable to the server": (
        "beta", ["tc filter add dev lxcserver egress prio 5 bpf da obj {object} sec shot"],
        ["tc filter del dev lxcserver egress prio 5"], UDP, "beta/lxcserver, tc_egress",
        "TC_EGRESS", "tc filter show dev lxcserver egress",
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
    "an unreachable route in the client": (
        "client", ["ip route add unreachable {server}"], ["ip route del unreachable {server}"],
        UDP, "in client", "EHOSTUNREACH", "type unreachable",
    ),
    "a reset rule in the server": (
        "server",
        [TABLE, CHAIN.replace("HOOK", "input").replace("policy drop ; ", ""),
         "nft add rule ip t c tcp dport 5000 reject with tcp reset"],
        NO_TABLE, TCP, "server/eth0, step 14 nf_input", "NETFILTER_DROP", "nft list",
    ),
    "a chain on the way out of a node's device": (
        "alpha",
        ["nft add table netdev t", "nft add chain netdev t c {{ type filter hook egress "
         "device eth0 priority 0 ; policy drop ; }}"],
        ["nft delete table netdev t"], UDP, "alpha/eth0, nf_egress", "NETFILTER_DROP", "nft list",
    ),
    "a chain of the bridge between the nodes": (
        "underlay",
        ["nft add table bridge t", "nft add chain bridge t c {{ type filter hook forward "
         "priority 0 ; policy drop ; }}"],
        ["nft delete table bridge t"], UDP, "underlay/alpha, nf_bridge", "NETFILTER_DROP",
        "nft list",
    ),
    "the other node's device is down": (
        "beta", ["ip link set eth0 down"], ["ip link set eth0 up"], UDP, "on the way to beta",
        "OTHERHOST", "ip link set eth0 up",
    ),
    "the other node's port of the bridge is down": (
        "underlay", ["ip link set beta down"], ["ip link set beta up"], UDP, "on the way to beta",
        "OTHERHOST", "ip link set beta up",
    ),
    "the bridge is down": (
        "underlay", ["ip link set br0 down"], ["ip link set br0 up"], UDP, "underlay/alpha", "",
        "br0 up",
    ),
    "the server's device is down": (
        "server", ["ip link set eth0 down"],
        ["ip link set eth0 up", "ip route add {server_router} dev eth0 scope link",
         "ip route add default via {server_router} dev eth0 mtu 1450"],
        UDP, "beta/lxcserver", "", "ip link set eth0 up",
    ),
    "the client's device is down": (
        "client", ["ip link set eth0 down"],
        ["ip link set eth0 up", "ip route add {router} dev eth0 scope link",
         "ip route add default via {router} dev eth0 mtu 1450"],
        UDP, "in client", "ENETUNREACH", "ip link set eth0 up",
    ),
    "the tunnel's device is down where it begins": (
        "alpha", ["ip link set cilium_vxlan down"], ["ip link set cilium_vxlan up"], UDP,
        "alpha/cilium_vxlan", "", "ip link set cilium_vxlan up",
    ),
    "the tunnel's device is down where it ends": (
        "beta", ["ip link set cilium_vxlan down"], ["ip link set cilium_vxlan up"], UDP,
        "beta/eth0, step 16", "NO_SOCKET", "ip link set cilium_vxlan up",
    ),
    "the server lost its address": (
        "server", ["ip addr del {server}/32 dev eth0"],
        ["ip addr add {server}/32 dev eth0", "ip route replace {server_router} dev eth0 scope link",
         "ip route replace default via {server_router} dev eth0 mtu 1450"],
        UDP, "server/eth0, step 13", "IP_INADDRERRORS", "ip addr add {server}",
    ),
    "the server has another MAC address": (
        "server", ["ip link set eth0 address 02:00:00:00:00:77"],
        ["ip link set eth0 address {server_mac}"], UDP, "server/eth0, step 10", "OTHERHOST",
        "lab bpf endpoint list",
    ),
    "a stale neighbour entry in a node": (
        "alpha",
        ["ip neigh replace 172.30.0.2 lladdr 02:00:00:00:00:99 dev eth0 nud permanent"],
        ["ip neigh del 172.30.0.2 dev eth0"], UDP, "beta/eth0, step 10", "OTHERHOST", "ip neigh",
    ),
    "the way back is elsewhere, strictly": (
        "server",
        ["sysctl -q -w net.ipv4.conf.eth0.rp_filter=1", "ip route add {client}/32 dev lo"],
        ["ip route del {client}/32 dev lo", "sysctl -q -w net.ipv4.conf.eth0.rp_filter=0"], UDP,
        "server/eth0, step 13", "IP_RPFILTER", "rp_filter",
    ),
    "the pod's cable takes small packets only": (
        "server", ["ip link set eth0 mtu 600"], ["ip link set eth0 mtu 1450"],
        replace(UDP, payload=bytes(1200)), "beta/lxcserver", "", "Raise that MTU",
    ),
    "the server has no way back (TCP)": (
        "server", ["ip route del default"],
        ["ip route add default via {server_router} dev eth0 mtu 1450"], TCP, "in server", "",
        "Add one there: ip route",
    ),
    "the server has no way back (ICMP)": (
        "server", ["ip route add blackhole {client}"], ["ip route del blackhole {client}"], ICMP,
        "in server", "", "Remove it there",
    ),
    "the server ignores echo requests": (
        "server", ["sysctl -q -w net.ipv4.icmp_echo_ignore_all=1"],
        ["sysctl -q -w net.ipv4.icmp_echo_ignore_all=0"], ICMP, "in server", "",
        "icmp_echo_ignore_all",
    ),
    "an IPsec policy against the answer": (
        "server", ["ip xfrm policy add dir out src 0.0.0.0/0 dst 0.0.0.0/0 action block"],
        ["ip xfrm policy flush"], TCP, "in server", "", "ip xfrm policy",
    ),
    "a rule of iptables-legacy": (
        "server", ["iptables-legacy -t raw -A PREROUTING -p udp --dport 5000 -j DROP"],
        ["iptables-legacy -t raw -F"], UDP, "server/eth0, step 11", "NETFILTER_DROP",
        "iptables-legacy -t raw -D PREROUTING -p udp -m udp --dport 5000 -j DROP",
    ),
    "a policy of iptables-legacy": (
        "server", ["iptables-legacy -P INPUT DROP"], ["iptables-legacy -P INPUT ACCEPT"], UDP,
        "server/eth0, step 14", "NETFILTER_DROP", "iptables-legacy -t filter -P INPUT ACCEPT",
    ),
    "a rule that redirects to a closed port": (
        "server", [TABLE, NAT, "nft add rule ip t c udp dport 5000 redirect to :6000"], NO_TABLE,
        UDP, "server/eth0, step 16", "NO_SOCKET", "nft delete rule ip t c handle 2",
    ),
    "a rule that sends it on to nobody": (
        "server", [TABLE, NAT, "nft add rule ip t c udp dport 5000 dnat to 10.0.2.99"], NO_TABLE,
        UDP, "server/eth0, step 13", "IP_INADDRERRORS", "nft delete rule ip t c handle 2",
    ),
    "a rule of policy routing in the client": (
        "client", ["ip rule add pref 77 to {server} blackhole"], ["ip rule del pref 77"], UDP,
        "in client", "EINVAL", "ip rule del pref 77",
    ),
    "a rule of policy routing against the answer": (
        "server", ["ip rule add pref 77 to {client} prohibit"], ["ip rule del pref 77"], TCP,
        "in server", "", "ip rule del pref 77",
    ),
    "a rule of policy routing against the tunnel": (
        "alpha", ["ip rule add pref 7 to 172.30.0.2 prohibit"], ["ip rule del pref 7"], UDP,
        "alpha/cilium_vxlan, route_output", "IP_OUTNOROUTES", "ip rule del pref 7",
    ),
    "the node's end of the client's cable is down": (
        "alpha", ["ip link set lxcclient down"], ["ip link set lxcclient up"], UDP,
        "client/eth0, neighbour", "", "ip link set lxcclient up",
    ),
    "an IPsec policy that has no key": (
        "client",
        ["ip xfrm policy add dir out src 0.0.0.0/0 dst 0.0.0.0/0 tmpl proto esp mode transport"],
        ["ip xfrm policy flush"], UDP, "client", "", "ip xfrm state",
    ),
    "a classifier keeps it in the server": (
        "server",
        ["tc qdisc add dev eth0 clsact",
         "tc filter add dev eth0 ingress bpf da obj {object} sec keep"],
        ["tc qdisc del dev eth0 clsact"], UDP, "server/eth0, step 8 tc_ingress", "",
        "tc filter show dev eth0 ingress",
    ),
    "a classifier keeps it on the cable to the server": (
        "beta", ["tc filter add dev lxcserver egress prio 5 bpf da obj {object} sec trap"],
        ["tc filter del dev lxcserver egress prio 5"], UDP, "sending at beta/lxcserver, tc_egress",
        "", "tc filter show dev lxcserver egress",
    ),
    "a classifier keeps it in front of the datapath": (
        "beta", ["tc filter add dev eth0 ingress prio 1 handle 2 bpf da obj {object} sec keep"],
        ["tc filter del dev eth0 ingress prio 1 handle 2 bpf"], UDP,
        "beta/eth0, step 8 tc_ingress", "", "tc filter show dev eth0 ingress",
    ),
    "a classifier redirects it to no device": (
        "server",
        ["tc qdisc add dev eth0 clsact",
         "tc filter add dev eth0 ingress bpf da obj {object} sec lead"],
        ["tc qdisc del dev eth0 clsact"], UDP, "server/eth0, step 8 tc_ingress", "",
        "Correct the program, or take it away: tc filter show dev eth0",
    ),
    "a classifier redirects it to no device on its way out": (
        "client",
        ["tc qdisc add dev eth0 clsact",
         "tc filter add dev eth0 egress bpf da obj {object} sec lead"],
        ["tc qdisc del dev eth0 clsact"], TCP, "sending at alpha/client/eth0, tc_egress", "",
        "Correct the program, or take it away: tc filter show dev eth0",
    ),
    "the bridge believes the node behind the sender's port": (
        "underlay", ["bridge fdb replace {beta_mac} dev alpha master static"],
        ["bridge fdb del {beta_mac} dev alpha master"], UDP,
        "on the way to beta, in underlay/br0", "NOT_SPECIFIED",
        "bridge fdb replace {beta_mac} dev beta",
    ),
    "the bridge believes the node behind the world's port": (
        "underlay", ["bridge fdb replace {beta_mac} dev world master static"],
        ["bridge fdb del {beta_mac} dev world master"], ICMP,
        "on the way to beta, in underlay/br0", "OTHERHOST",
        "bridge fdb replace {beta_mac} dev beta",
    ),
    "the bridge believes the sender behind another port": (
        # else the bridge learns from the request, static entries or not
        "underlay", ["bridge fdb replace {alpha_mac} dev world master static sticky"],
        ["bridge fdb del {alpha_mac} dev world master"], ICMP,
        "the answer was lost, on the way to alpha", "OTHERHOST",
        "bridge fdb replace {alpha_mac} dev alpha",
    ),
    "an XDP program sends it back": (
        "server", ["ip link set dev eth0 xdpdrv obj {object} sec back"],
        ["ip link set dev eth0 xdpdrv off"], UDP, "server/eth0, step 2 xdp", "ENXIO", "gro on",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def lab():
    with acquainted(replace(topology, options=Options(masquerade="off"))) as lab:
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
        "server_router": lab.pod("server").node.facts.router,
        "alpha_mac": lab.facts.node("alpha").mac,
        "beta_mac": lab.facts.node("beta").mac,
        "server_mac": lab.pod("server").facts.mac,
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
    assert remedy.format(**values) in answer.change, answer.paragraph
    with lab.pod("server").serve_tcp(5000):
        eventually(lambda: lab.pod("client").connect(lab.pod("server"), 5000).ok, within_s=10)


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


PORTS = Service(
    name="web", ports=(ServicePort(80, target=5000),), backends=("server",), cluster_ip="10.96.0.50"
)
EMPTY = replace(PORTS, backends=(), selector={"app": "nobody"})
DENY = CiliumPolicy(
    name="deny", endpoint_selector=Selector.of(app="server"),
    ingress_deny=(CiliumRule(endpoints=(Selector.of(app="client"),)),),
)  # fmt: skip
PORT_80 = replace(
    INGRESS,
    ingress=(NetworkRule(peers=(Peer(pod_selector=Selector()),), ports=(Port("TCP", 80),)),),
)
OBJECTS = {
    "a deny rule": (DENY, "server", TCP, "POLICY_DENY", "deny rule"),
    "a policy for another port": (PORT_80, "server", TCP, "POLICY", "port 5000: no entry"),
    "a policy for another protocol": (
        PORT_80, "server", replace(UDP, port=80), "POLICY", "protocol 17 port 80: no entry",
    ),
    "a port that the service does not have": (
        PORTS, "10.96.0.50", replace(TCP, port=81), "", "does not have TCP port 81: it has TCP 80",
    ),
    "a protocol that the service does not have": (
        PORTS, "10.96.0.50", replace(UDP, port=80), "", "does not have UDP port 80",
    ),
    "a service with a wrong target port": (
        replace(PORTS, ports=(ServicePort(80, target=5001),)), "10.96.0.50",
        replace(TCP, port=80, listen=False), "NO_SOCKET", "listens on TCP port 5001, to which cil_",
    ),
    "an echo request to a service": (PORTS, "10.96.0.50", ICMP, "", "answer echo requests"),
    "a service whose server sleeps": (
        PORTS, "10.96.0.50", replace(TCP, port=80, listen=False), "NO_SOCKET", "no socket listens",
    ),
    "a service without backend": (
        EMPTY, "10.96.0.50", replace(TCP, port=80), "NO_SERVICE", "no backend",
    ),
    "an address of nobody": (PORTS, "10.0.2.77", UDP, "UNROUTABLE", "has the address 10.0.2.77"),
    "an address of nobody in the underlay": (
        PORTS, "172.30.0.77", UDP, "", "ARP question for 172.30.0.77",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("item", "receiver", "shot", "reason", "words"), OBJECTS.values(), ids=OBJECTS.keys()
)
def test_policies_services_and_addresses_are_told_apart(lab, item, receiver, shot, reason, words):
    lab.apply(item)
    try:
        answer = why(lab, "client", receiver, shot)
    finally:
        lab.delete(item)
    assert (answer.arrived, answer.known) == (False, True), answer.paragraph
    assert reason in ("", answer.reason), answer.paragraph
    assert words in answer.paragraph


BY_PORT = replace(PORTS, kind="NodePort", ports=(ServicePort(80, target=5001, node_port=30080),))
FROM_A_NODE = {
    "a cluster IP": ("10.96.0.50", 80, "nothing translates what alpha's own sockets send"),
    "its own node port": ("172.30.0.1", 30080, "nothing translates what alpha's own sockets send"),
    "another node's node port": ("172.30.0.2", 30080, "no socket listens on TCP port 5001"),
}


@pytest.mark.parametrize(
    ("receiver", "port", "words"), FROM_A_NODE.values(), ids=FROM_A_NODE.keys()
)
def test_a_nodes_own_socket_asks_a_service(lab, receiver, port, words):
    lab.apply(BY_PORT)
    try:
        answer = why(lab, "alpha", receiver, replace(TCP, port=port, listen=False))
    finally:
        lab.delete(BY_PORT)
    assert words in answer.paragraph


def test_a_backend_that_is_gone_is_not_taken_for_its_service(lab):
    lab.apply(PORTS)
    try:
        with lab.node("alpha").map("cilium_lb4_backends") as backends:
            for key, value in list(backends.items()):
                backends.update(key, replace(value, address=IPv4Address("10.0.2.77")))
        answer = why(lab, "client", "10.96.0.50", replace(TCP, port=80))
    finally:
        lab.delete(PORTS)
    assert answer.known, answer.paragraph
    assert "has the address 10.0.2.77: cil_from_container on lxcclient" in answer.cause


def test_an_answer_that_is_not_translated_back_is_told_from_an_unknown_port(lab):
    lab.apply(PORTS)
    try:
        with (
            lab.pod("server").serve_tcp(5000),
            lab.node("alpha").map("cilium_lb4_reverse_nat") as reverse,
        ):
            for key, _ in list(reverse.items()):
                reverse.delete(key)
            answer = why(lab, "client", "10.96.0.50", replace(TCP, port=80))
    finally:
        lab.delete(PORTS)
    assert answer.known, answer.paragraph
    assert "nothing translated it back" in answer.cause


def test_a_world_that_is_down_is_not_taken_for_a_stale_neighbour(lab):
    assert lab.node("alpha").ping(lab.world).ok
    lab.world.run(["ip", "link", "set", "eth0", "down"], check=True)
    try:
        answer = why(lab, "alpha", "world", UDP)
    finally:
        lab.world.run(["ip", "link", "set", "eth0", "up"], check=True)
    assert answer.known, answer.paragraph
    assert answer.change == "Set it up there: ip link set eth0 up."
    assert "eth0 in world is down" in answer.cause


ENTRIES = {
    "the endpoint's": ("beta", "cilium_lxc", None, "UNROUTABLE", "does not know that server"),
    "the endpoint's MAC": (
        "beta", "cilium_lxc", {"mac": "02:00:00:00:00:99"}, "OTHERHOST", "02:00:00:00:00:99",
    ),
    "the endpoint's id": ("beta", "cilium_lxc", {"lxc_id": 999}, "EP_NOT_READY", "endpoint 999"),
    "the node's": (
        "alpha", "cilium_ipcache", {"tunnel_endpoint": IPv4Address("172.30.0.99")}, "",
        "ARP question for 172.30.0.99",
    ),
    "the node's, with the sender's own": (
        "alpha", "cilium_ipcache", {"tunnel_endpoint": IPv4Address("172.30.0.1")}, "IP_INHDR",
        "goes in circles",
    ),
    "the node's, with the world's": (
        "alpha", "cilium_ipcache", {"tunnel_endpoint": IPv4Address("172.30.0.254")}, "NO_SOCKET",
        "world, which is no node",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("node", "name", "new", "reason", "words"), ENTRIES.values(), ids=ENTRIES.keys()
)
def test_a_wrong_entry_in_a_map_is_found(lab, node, name, new, reason, words):
    with lab.node(node).map(name) as entries:
        address = lab.pod("server").address
        key, value = next(one for one in entries.items() if one[0].ip4 == address)
        try:
            if new is None:
                entries.delete(key)
            else:
                entries.update(key, replace(value, **new))
            answer = why(lab, "client", "server", UDP)
        finally:
            entries.update(key, value)
    assert answer.known, answer.paragraph
    assert reason in ("", answer.reason), answer.paragraph
    assert words in answer.paragraph


SPOILERS = {"in the driver": ("xdpdrv", "xdp"), "in the stack": ("xdpgeneric", "generic_xdp")}


@pytest.mark.parametrize(("mode", "hook"), SPOILERS.values(), ids=SPOILERS.keys())
def test_a_program_that_spoils_a_checksum_is_named(lab, mode, hook):
    """The client makes the checksum itself: else nobody would check it."""
    (lesson,) = build([SOURCES / "lessons" / "verdicts.c"])
    device = f"ip link set dev lxcclient {mode}"
    with (
        fault(lab.pod("client"), ["ethtool -K eth0 tx off"], ["ethtool -K eth0 tx on"], {}),
        fault(lab.node("alpha"), [f"{device} obj {lesson} sec xdp/payload"], [f"{device} off"], {}),
    ):
        answer = why(lab, "client", "server", UDP)
    assert answer.known
    assert "server/eth0, step 16 udp_rcv" in answer.where
    assert "XDP program xdp_payload at alpha/lxcclient" in answer.cause
    assert answer.trace is not None
    (asked,) = (hop for hop in answer.trace.taken if hop.hook == hook)
    assert b"hello" in asked.before
    assert b"Hello" in asked.after


SOCKETS = {
    "bound to the loopback": (
        "s = socket.socket(2, 2); s.bind(('127.0.0.1', 5000))", UDP, "bound at 127.0.0.1:5000",
    ),
    "connected to somebody else": (
        "s = socket.socket(2, 2); s.bind(('', 5000)); s.connect(('10.0.1.99', 1))", UDP,
        "connected to 10.0.1.99:1",
    ),
    "bound to another device": (
        "s = socket.socket(2, 2); s.setsockopt(1, 25, b'lo'); s.bind(('', 5000))", UDP,
        "bound to the device lo, and the packet came through eth0",
    ),
    "for IPv6 only": (
        "s = socket.socket(10, 1); s.setsockopt(41, 26, 1); s.bind(('::', 5000)); s.listen()", TCP,
        "for IPv6 only",
    ),
    "that asks for a larger time to live": (
        "s = socket.socket(); s.setsockopt(0, 21, 255); s.bind(('', 5000)); s.listen()", TCP,
        "IP_MINTTL",
    ),
    "which nobody reads": (
        "s = socket.socket(2, 2); s.setsockopt(1, 8, 1); s.bind(('', 5000))\n"
        "[s.sendto(b'x', ('127.0.0.1', 5000)) for _ in range(99)]", UDP, "does not read",
    ),
    "which nobody accepts from": (
        "s = socket.socket(); s.bind(('', 5000)); s.listen(0); cs = []\n"
        "for _ in range(4):\n"
        "    cs.append(socket.socket()); cs[-1].setblocking(False)\n"
        "    cs[-1].connect_ex(('127.0.0.1', 5000))", TCP, "full accept queue on port 5000",
    ),
}  # fmt: skip


HOLD = """
import os, signal, socket
os.setsid()
{code}
if (child := os.fork()):
    print(child, flush=True)
    os._exit(0)
os.closerange(0, 3)
signal.pause()
"""


@pytest.mark.parametrize(("code", "shot", "words"), SOCKETS.values(), ids=SOCKETS.keys())
def test_a_socket_that_takes_nothing_is_described(lab, code, shot, words):
    server = lab.pod("server")
    child = server.run(["python3", "-c", HOLD.format(code=code)], check=True).stdout
    try:
        answer = why(lab, "client", "server", replace(shot, listen=False))
    finally:
        server.run(["kill", child.strip()], check=True)
        taken = ["ss", "-Hna", "sport", "=", ":5000"]
        eventually(lambda: "5000 " not in server.run(taken).stdout, within_s=10)
    assert answer.known, answer.paragraph
    assert words in answer.paragraph


ROUTED = {
    "a node that does not forward": (
        "alpha", ["sysctl -q -w net.ipv4.ip_forward=0"], ["sysctl -q -w net.ipv4.ip_forward=1"],
        "alpha/lxcclient, step 13", "ip_forward=1",
    ),
    "a blackhole on a node": (
        "beta", ["ip route add blackhole {server}"], ["ip route del blackhole {server}"],
        "beta/eth0, step 13", "type blackhole",
    ),
    "a rule against forwarding": (
        "beta", chain("forward"), NO_TABLE, "beta/eth0, nf_forward", "nft",
    ),
    "the other node's device is down": (
        "beta", ["ip link set eth0 down"], ["ip link set eth0 up"], "on the way to beta",
        "ip link set eth0 up",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def routed():
    with acquainted(replace(topology, options=Options(routing="native"))) as lab:
        yield lab


@pytest.mark.parametrize(
    ("place", "do", "undo", "where", "remedy"), ROUTED.values(), ids=ROUTED.keys()
)
def test_a_node_that_routes_has_faults_of_its_own(routed, values, place, do, undo, where, remedy):
    with fault(routed.place(place), do, undo, values):
        answer = why(routed, "client", "server", UDP)
    assert answer.known, answer.paragraph
    assert where in answer.where, answer.paragraph
    assert remedy in answer.change


def test_what_nothing_explains_is_called_unknown(lab):
    ports = ("alpha", "beta")
    for port in ports:
        lab.underlay.run(["bridge", "link", "set", "dev", port, "isolated", "on"], check=True)
    try:
        answer = why(lab, "client", "server", UDP)
    finally:
        for port in ports:
            lab.underlay.run(["bridge", "link", "set", "dev", port, "isolated", "off"], check=True)
    assert (answer.arrived, answer.known) == (False, False)
    assert "underlay/alpha" in answer.where


WORKS = {"udp": UDP, "tcp": TCP, "icmp": ICMP}


@pytest.mark.parametrize("shot", WORKS.values(), ids=WORKS.keys())
def test_nothing_is_wrong_where_nothing_is_wrong(lab, shot):
    assert why(lab, "client", "server", shot).arrived
