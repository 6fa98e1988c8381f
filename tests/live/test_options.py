"""Every option of the datapath carries the same traffic; what differs is who sees which address."""

from dataclasses import replace

import pytest

from lab import Lab, Options, Service, ServicePort
from lab.policy.objects import NetworkPolicy, Selector
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

NODE, POD = "172.30.0.1", "10.0.1.10"
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
                tries = [lab.pod(name).connect(address, port, payload=b"?") for _ in range(12)]
                found = {(one.error, one.reply) for one in tries}
                assert found == {("", b"web"), ("", b"server")}, (name, address)


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
