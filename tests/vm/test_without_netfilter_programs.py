"""Debian's kernel lets no BPF program into netfilter's hooks: what the ladder says all the same."""

from dataclasses import replace

from lab.datapath.build import SOURCES, build
from lab.trace import Evidence, Side, Step, Witness
from tests.live.following import acquainted
from topologies.single_node import topology as one_node
from topologies.two_nodes import topology

REDIRECTING = replace(topology.options, routing="native", host_routing="bpf")
IP_LAYER = {
    Step.IP_RCV, Step.IP_RCV_FINISH, Step.IP_ROUTING, Step.IP_LOCAL_DELIVER, Step.L4_RECEIVE,
}  # fmt: skip


def test_a_packet_redirected_into_a_pod_meets_no_ip_layer_of_the_node() -> None:
    watched = (Witness.TRACEPOINTS, Witness.BOTH)
    with acquainted(replace(topology, options=REDIRECTING)) as lab:
        traces = [lab.follow("client", "server", witness=one).packets[0] for one in watched]
    for witness, trace in zip(watched, traces, strict=True):
        node = {hop.step for hop in trace.taken if hop.namespace == "beta"}
        pod = {hop.step for hop in trace.taken if hop.namespace == "server"}
        assert not node & IP_LAYER, witness
        assert pod >= IP_LAYER, witness
        assert trace.delivered, witness


def test_losses_in_output_and_of_redirected_frames_are_seen() -> None:
    (verdicts,) = build([SOURCES / "lessons" / "verdicts.c"])
    with acquainted(one_node) as lab:
        alpha, client = lab.node("alpha"), lab.pod("client")
        aside = f"ip link set dev lxcclient xdpdrv obj {verdicts} sec xdp/aside"
        alpha.run(aside.split(), check=True)
        redirected = lab.follow("client", "server").packets[0]
        alpha.run(["ip", "link", "set", "dev", "lxcclient", "xdpdrv", "off"], check=True)
        client.run(["nft", "add", "table", "ip", "t"], check=True)
        chain = "nft add chain ip t c { type filter hook output priority 0 ; policy drop ; }"
        client.run(chain.split(), check=True)
        (forbidden,) = lab.follow("client", "server").packets
    (lost,) = redirected.drops
    assert (lost.namespace, lost.step, lost.drop_reason) == ("alpha", Step.XDP_DRIVER, "ENXIO")
    (drop,) = forbidden.drops
    assert (drop.namespace, drop.hook, drop.side) == ("client", "nf_output", Side.SEND)
    assert (drop.drop_reason, drop.evidence) == ("NETFILTER_DROP", Evidence.PROBE)
