"""Two ways of the same packet, told apart where they part: each pair is one switch turned."""

from dataclasses import replace

import pytest

from lab import Options, Service, ServicePort
from lab.policy.objects import NetworkPolicy, Selector
from lab.report.diff import Kind, diff, differences
from lab.trace import Step
from tests.live.following import acquainted, one_packet, polled
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

GUARD = NetworkPolicy(name="guard", pod_selector=Selector.of(app="server"))
WEB = Service(
    name="web", ports=(ServicePort(80, target=5000, protocol="UDP"),), backends=("server",),
    cluster_ip="10.96.0.50",
)  # fmt: skip


def compared(left, right):
    return differences(diff(left, right))


def rows_at(rows, namespace, step):
    """The rows about a step that both packets took or explain, in a namespace."""
    both = (row for row in rows if row.left and row.right)
    return [row for row in both if row.left.namespace == namespace and row.left.step is step]


@pytest.fixture(scope="module")
def lab():
    with acquainted(topology) as lab:
        yield lab


def test_a_policy_parts_two_ways_at_the_program_that_asks_it(lab):
    free = one_packet(lab)
    lab.apply(GUARD)
    try:
        guarded = one_packet(lab, timeout_s=0.2)
    finally:
        lab.delete(GUARD)
    first, *later = compared(free, guarded)
    assert (first.left.program, first.left.verdict) == ("cil_from_overlay", "redirect")
    assert (first.right.verdict, first.right.drop_reason) == ("drop", "POLICY")
    assert {row.kind for row in later[1:]} == {Kind.ONLY_LEFT}


def test_gro_parts_two_ways_in_the_receiving_pod_alone(lab):
    plain = one_packet(lab)
    with polled(lab, "server"):
        merged = one_packet(lab)
    rows = compared(plain, merged)
    assert {(row.left or row.right).namespace for row in rows} == {"server"}
    (gro,) = rows_at(rows, "server", Step.GRO_RECEIVE)
    assert (gro.left.taken, gro.right.taken, gro.fields) == (False, True, ("evidence",))
    assert [row.left.hook for row in rows if row.kind is Kind.ONLY_LEFT] == ["netif_rx"]


def test_host_routing_by_programs_leaves_out_both_nodes_stacks():
    ways = []
    for routing in ("legacy", "bpf"):
        options = Options(host_routing=routing, routing="native")
        with acquainted(replace(topology, options=options)) as lab:
            ways.append(one_packet(lab))
    rows = compared(*ways)
    for node in ("alpha", "beta"):
        (routed,) = rows_at(rows, node, Step.IP_ROUTING)
        assert (routed.left.taken, routed.right.taken) == (True, False)
    assert [row.left.hook for row in rows if row.kind is Kind.ONLY_LEFT][:1] == ["nf_forward"]
    again = [row for row in rows if row.again[1]]
    assert [row.left.step for row in again if row.left.namespace == "alpha"][0] is Step.IP_RCV


def test_a_service_is_translated_by_netfilter_or_by_a_program():
    ways = []
    routed = Options(routing="native", endpoint_routes=True)
    for datapath in (False, True):
        with acquainted(replace(topology, options=replace(routed, datapath=datapath))) as lab:
            if datapath:
                lab.apply(WEB)
            else:
                lab.kube_proxy("nftables", WEB)
            with lab.pod("server").serve_udp(5000):
                ways.append(one_packet(lab, to="10.96.0.50", port=80, listen=False))
    rows = compared(*ways)
    told = "destination 10.96.0.50 → 10.0.2.10, destination port 80 → 5000"
    (program,) = rows_at(rows, "alpha", Step.TC_INGRESS)
    (chain,) = rows_at(rows, "alpha", Step.NETFILTER_PREROUTING)
    assert program.rewritten == ("", told)
    assert chain.rewritten == (told, "")
