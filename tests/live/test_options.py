"""Every option of the datapath carries the same traffic; what differs is who sees which address."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab import Lab, Options, Service, ServicePort
from lab.cli.root import run
from lab.kernel.bpfmap import BpfMap
from lab.policy.objects import NetworkPolicy, Selector
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

NODE, POD = "172.30.0.1", "10.0.1.10"
PEERS = ("server", "other")
OPTIONS = {
    "tunnel": (Options(), NODE),
    "native routing": (Options(routing="native"), NODE),
    "host routing past the stack": (Options(host_routing="bpf"), NODE),
    "native and host routing": (Options(routing="native", host_routing="bpf"), NODE),
    "one route per pod": (Options(endpoint_routes=True), NODE),
    "masquerade by netfilter": (Options(masquerade="iptables"), NODE),
    "masquerade by netfilter, native": (Options(routing="native", masquerade="iptables"), NODE),
    "no masquerade": (Options(masquerade="off"), POD),
    "maglev": (Options(lb_algorithm="maglev"), NODE),
    "direct server return": (Options(routing="native", nodeport_mode="dsr"), NODE),
    "host routing without clsact": (Options(host_routing="bpf", tcx=True), NODE),
    "no rules for a proxy": (Options(proxy_rules=False), NODE),
    "fewer tail calls": (Options(inline_tail_calls=True), NODE),
    "fewer tail calls, one route per pod": (
        Options(inline_tail_calls=True, endpoint_routes=True),
        NODE,
    ),
}
REACH = [
    ("client", "web"), ("client", "server"), ("client", "alpha"), ("client", "beta"),
    ("alpha", "client"), ("alpha", "server"), ("alpha", "beta"),
]  # fmt: skip


@pytest.fixture(scope="module", params=OPTIONS.values(), ids=OPTIONS.keys())
def built(request):
    options, seen = request.param
    with Lab(replace(topology, options=options)) as lab:
        both = ("web", "server")
        ports = (ServicePort(80, 8080),)
        lab.apply(Service(name="web", ports=ports, backends=both, kind="LoadBalancer"))
        yield lab, seen


def test_pods_nodes_and_both_reach_each_other(built):
    lab, _ = built
    assert [pair for pair in REACH if not lab.place(pair[0]).ping(lab.place(pair[1])).ok] == []


def test_outside_sees_the_address_that_masquerade_leaves(built):
    lab, seen = built
    with lab.world.serve_tcp(9000) as server:
        assert lab.pod("client").connect(lab.world, 9000, payload=b"hello").ok
        assert {address for address, _ in server.report()["peers"]} == {seen}


def test_both_backends_answer_behind_every_address_of_a_service(built):
    lab, _ = built
    service = lab.service("web")
    addresses = {item.kind: item for item in service.frontends if item.node in ("", "alpha")}
    tries = {
        "client": (addresses["ClusterIP"].address, 80),
        "world": ("172.30.0.1", service.node_ports[0]),
        "world by load balancer": (addresses["LoadBalancer"].address, 80),
    }
    with (
        lab.pod("web").serve_tcp(8080, reply=b"web"),
        lab.pod("server").serve_tcp(8080, reply=b"server"),
    ):
        for who, (address, port) in tries.items():
            place = lab.place(who.split()[0])
            answers = [place.connect(address, port, payload=b"?") for _ in range(16)]
            assert {(a.error, a.reply) for a in answers} == {("", b"web"), ("", b"server")}, who


BOTH = {("", b"web"), ("", b"server")}


def ask_until_both(pod, address, port):
    """Connect until both backends have answered, 40 times at most; return what came back."""
    found = set()
    for _ in range(40):
        answer = pod.connect(address, port, payload=b"?")
        found.add((answer.error, answer.reply))
        if found == BOTH:
            break
    return found


def test_node_ports_of_every_node_answer_pods_wherever_the_backend_is(built):
    lab, _ = built
    port = lab.service("web").node_ports[0]
    nodes = [place for node in lab.facts.nodes for place in (node.address, node.router)]
    with (
        lab.pod("web").serve_tcp(8080, reply=b"web"),
        lab.pod("server").serve_tcp(8080, reply=b"server"),
    ):
        for name in ("client", "other"):
            for address in nodes:
                assert ask_until_both(lab.pod(name), address, port) == BOTH, (name, address)


def test_policy_lets_a_pod_reach_itself_through_its_service(built):
    lab, _ = built
    lab.apply(Service(name="self", ports=(ServicePort(80, 8080),), backends=("web",)))
    closed = NetworkPolicy(name="closed", pod_selector=Selector.of(app="web"))
    lab.apply(closed)
    address = lab.service("self").address
    try:
        with lab.pod("web").serve_tcp(8080, reply=b"web"):
            assert lab.pod("web").connect(address, 80, payload=b"?").reply == b"web"
            assert not lab.pod("client").connect(address, 80, timeout_s=0.3).ok
    finally:
        lab.delete("networkpolicy/default/closed", "service/default/self")


def test_dsr_lets_the_backend_see_its_client_and_snat_the_node():
    for mode, expected in (("dsr", "172.30.0.254"), ("snat", "172.30.0.1")):
        options = Options(routing="native", nodeport_mode=mode)
        with Lab(replace(topology, options=options)) as lab:
            port = ServicePort(80, 8080, node_port=30080)
            lab.apply(Service(name="s", ports=(port,), backends=("server",), kind="NodePort"))
            with lab.pod("server").serve_tcp(8080) as server:
                assert lab.world.connect("172.30.0.1", 30080, payload=b"hi").reply == b"hi"
                assert [address for address, _ in server.report()["peers"]] == [expected]


def test_dsr_clients_learn_that_the_option_needs_room():
    """Of full-size datagrams, whole or in fragments, the first is lost and the next are shorter."""
    options = Options(routing="native", nodeport_mode="dsr")
    port = ServicePort(80, 8080, "UDP", node_port=30080)
    with Lab(replace(topology, options=options)) as lab:
        lab.apply(Service(name="s", ports=(port,), backends=("server",), kind="NodePort"))
        with lab.pod("server").serve_udp(8080):
            for size in (1464, 4000):
                node = lab.node("alpha")
                sent = [
                    lab.world.send_udp(node, 30080, bytes(size), timeout_s=0.5).ok for _ in range(2)
                ]
                route = lab.world.run(["ip", "route", "get", str(node.address)]).stdout
                assert (sent, "mtu 1492" in route) == ([False, True], True), route
                lab.world.run(["ip", "route", "flush", "cache"], check=True)


SHOWN = {
    "a routed network": Options(native_routing_cidr="203.0.113.0/24"),
    "an exception": Options(masquerade_exceptions=("203.0.113.0/24",)),
    "a routed network, by netfilter": Options(
        masquerade="iptables", native_routing_cidr="203.0.113.0/24"
    ),
    "an exception, by netfilter": Options(
        masquerade="iptables", masquerade_exceptions=("203.0.113.0/24",)
    ),
}


@pytest.mark.parametrize("options", SHOWN.values(), ids=SHOWN.keys())
def test_only_networks_that_are_named_see_a_pods_own_address(options):
    with Lab(replace(topology, options=options)) as lab, lab.world.serve_tcp(9000) as server:
        for address in (lab.facts.world_client, lab.facts.gateway):
            assert lab.pod("client").connect(address, 9000, payload=b"hi").reply == b"hi"
        seen = [address for address, _ in server.report()["peers"]]
    assert seen == [POD, NODE]


def test_a_node_remembers_as_many_flows_as_its_topology_says():
    capacity = {}
    with Lab(replace(topology, options=Options(ct_tcp_max=65536)), name="roomy") as lab:
        for when in ("made", "after its pod's programs were loaded anew"):
            if when != "made":
                lab.node("alpha").agent.regenerate("client")
            with BpfMap.from_pin(
                Path(lab.node("alpha").pin("tc", "globals", "cilium_ct4_global"))
            ) as flows:
                capacity[when] = (flows.spec.max_entries, flows.id)
    assert {entries for entries, _ in capacity.values()} == {65536}
    assert len({number for _, number in capacity.values()}) == 1, "the same map as before"


HOOKS = {"cil_from_container", "cil_to_overlay", "cil_from_overlay", "cil_from_netdev"}


def test_without_clsact_programs_are_exchanged_and_a_packet_tells_of_its_hooks():
    with Lab(replace(topology, options=Options(host_routing="bpf", tcx=True))) as lab:
        assert "clsact" not in lab.node("alpha").run(["tc", "qdisc", "show"]).stdout
        for node, pod in (("alpha", "client"), ("beta", "server")):
            lab.node(node).agent.regenerate(pod)
        trace = lab.follow("client", "server").packets[0]
        assert trace.delivered
        assert {hop.program for hop in trace.taken} >= HOOKS


REFUSE_ONE = """
#include "lib/common.h"
#include "lib/config.h"
#include "lib/custom.h"

SEC("tc/refuse") int refuse(struct __sk_buff *ctx)
{
	return custom_identity(ctx) == %d ? TC_ACT_SHOT : custom_verdict(ctx);
}
"""


def reached(lab):
    return [lab.pod("client").ping(lab.pod(name), timeout_s=0.3).ok for name in PEERS]


def test_a_custom_call_has_the_last_word(tmp_path, capsys):
    with Lab(replace(topology, options=Options(custom_calls=True)), name="custom") as lab:
        source = tmp_path / "refuse.c"
        source.write_text(REFUSE_ONE % lab.pod("server").facts.identity)
        assert reached(lab) == [True, True]
        words = ["endpoint", "custom", "client", "egress", "--lab", "custom"]
        assert run([*words[:4], str(source), *words[4:]]) == 0
        assert capsys.readouterr().out == "egress of client: refuse has the last word\n"
        assert reached(lab) == [False, True]
        lab.node("alpha").agent.regenerate("client")
        assert reached(lab) == [False, True], "its slot outlives the pod's own programs"
        assert run(words) == 0
        assert reached(lab) == [True, True]


def test_without_the_option_there_are_no_custom_calls(capsys):
    with Lab(topology, name="plain"):
        assert run(["endpoint", "custom", "client", "egress", "x.c", "--lab", "plain"]) == 2
    assert "--set custom_calls=true" in capsys.readouterr().err
