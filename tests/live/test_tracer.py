"""The tracer on real packets: each line has a source, and goes with it."""

import json
import subprocess
from dataclasses import replace

import pytest

from lab import Lab, Node, Options, Pod, Topology
from lab.observe.at import follow_at
from lab.observe.programs import PROBES
from lab.observe.recording import Shot
from lab.observe.tracer import Tracer
from lab.observe.words import HOOKS, VERDICTS
from lab.packets import new_cookie
from lab.trace import Evidence, Side, Step

pytestmark = pytest.mark.live

TOPOLOGY = Topology(
    name="traced",
    nodes=(Node("alpha"), Node("beta")),
    pods=(Pod("client", node="alpha"), Pod("server", node="beta")),
)
POD_STEPS = {
    Step.NAPI_POLL, Step.RECEIVE_SKB, Step.IP_RCV, Step.NETFILTER_PREROUTING, Step.IP_RCV_FINISH,
    Step.IP_ROUTING, Step.IP_LOCAL_DELIVER, Step.L4_RECEIVE, Step.RECEIVE_QUEUE, Step.DATA_READY,
}  # fmt: skip


@pytest.fixture(scope="module")
def lab():
    with Lab(TOPOLOGY) as lab:
        yield lab


@pytest.fixture(scope="module")
def udp_trace(lab):
    return lab.follow("client", "server").packets[0]


def shot(lab, tracer):
    """One datagram from client to server, followed; sent once before, so that ARP is done."""
    server = lab.pod("server")
    with server.serve_udp(5000):
        lab.pod("client").send_udp(server, 5000)
        tracer.clear()
        cookie = new_cookie()
        tracer.only_cookie(cookie, sender="client", destination=str(server.address))
        lab.pod("client").send_udp(server, 5000, cookie=cookie)
        tracer.pause()
    traces = tracer.traces()
    tracer.clear()
    return next(trace for trace in traces if trace.packet.receiver == "server")


def test_the_receiving_pod_takes_its_steps_and_explains_the_others(udp_trace):
    hops = udp_trace.at(namespace="server")
    assert {hop.step for hop in hops if hop.taken and hop.step} == POD_STEPS
    assert {hop.step for hop in hops if hop.step} == set(Step)
    assert not [hop for hop in hops if hop.evidence is Evidence.IMPLIED]


def test_every_line_seen_has_a_time_and_an_object(udp_trace):
    assert all(hop.ns and hop.object.startswith("prog ") for hop in udp_trace.taken)
    times = [hop.ns for hop in udp_trace.taken if hop.evidence is Evidence.TRACEPOINT]
    assert times == sorted(times)


def test_the_tunnel_is_seen_at_the_underlay(udp_trace):
    underlay = udp_trace.at(namespace="underlay")
    identity = 256
    assert {hop.identity for hop in underlay if hop.before} == {identity}
    assert any(b"\x21\x18" in (hop.before or b"") for hop in underlay)  # UDP port 8472


def test_nothing_was_lost_and_the_packet_arrived(udp_trace):
    assert (udp_trace.lost, udp_trace.delivered, udp_trace.drops) == (0, True, ())


def test_programs_are_those_that_bpftool_knows(lab, udp_trace):
    """An independent witness for the names: the kernel's own list of programs."""
    with Tracer(lab) as tracer:
        trace = shot(lab, tracer)
        listed = json.loads(
            subprocess.run(
                ["bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=True
            ).stdout
        )
        known = {f"prog {program['id']}" for program in listed}
        assert {hop.object for hop in trace.taken} <= known


@pytest.mark.parametrize("begins", ["client", ""], ids=["at its sender", "anywhere"])
def test_a_light_trace_tells_where_the_packet_was_and_what_the_datapath_did(lab, udp_trace, begins):
    server = lab.pod("server")
    cookie = new_cookie()
    with Tracer(lab, stacks=False) as tracer, server.serve_udp(5000):
        tracer.only_cookie(cookie, sender=begins)
        lab.pod("client").send_udp(server, 5000, cookie=cookie)
        traces = tracer.traces()
    trace = next(trace for trace in traces if trace.packet.receiver == "server")

    def programs(trace):
        return [(hop.namespace, hop.hook, hop.program) for hop in trace.taken if hop.program]

    def received(trace):
        return [h.device for h in trace.taken if h.step is Step.RECEIVE_SKB]

    assert (trace.lost, trace.delivered, trace.packet.sender) == (0, True, "client")
    assert (programs(trace), received(trace)) == (programs(udp_trace), received(udp_trace))
    assert set(trace.missing) > set(udp_trace.missing)


def test_programs_made_idle_tell_nothing(lab):
    with Tracer(lab, idle=True) as tracer:
        tracer.everything()
        lab.pod("client").ping(lab.pod("server"))
        assert tracer.count() == (0, 0)


def key(hop):
    return (hop.node, hop.namespace, hop.device, hop.hook, hop.step)


def test_detaching_a_probe_takes_exactly_its_lines(lab):
    with Tracer(lab) as tracer:
        whole = shot(lab, tracer)
        owners = {hop.object for hop in whole.taken}
        objects = {name: tracer.object_of(name) for name in (probe.name for probe in PROBES)}
        writing = [name for name, object_ in objects.items() if object_ in owners]
    assert len(writing) >= 8
    for name in writing:
        if name in ("on_receive_skb", "netfilter_first"):
            continue  # other lines are derived from where these say the packet is; see below
        with Tracer(lab) as tracer:
            mine = tracer.object_of(name)
            tracer.detach(name)
            less = shot(lab, tracer)
        lines = {key(hop) for hop in whole.taken if hop.object == objects[name]}
        others = {
            key(hop)
            for hop in whole.taken
            # a reader is waited for only at a socket that was seen to be woken
            if hop.object != objects[name] and (name, hop.hook) != ("on_data_ready", "read")
        }
        left = {key(hop) for hop in less.taken}
        assert mine not in {hop.object for hop in less.taken}, name
        assert others <= left | lines, name


def test_without_the_entry_probe_its_lines_are_gone_and_not_guessed(lab):
    with Tracer(lab) as tracer:
        tracer.detach("on_receive_skb")
        trace = shot(lab, tracer)
    assert Step.RECEIVE_SKB not in trace.steps("server")
    assert Step.DATA_READY in trace.steps("server")


PROTOCOLS = {
    "udp ends in the socket's queue": ("udp", {Step.RECEIVE_QUEUE, Step.DATA_READY}),
    "tcp data ends in the socket's queue": ("tcp", {Step.RECEIVE_QUEUE, Step.DATA_READY}),
    "icmp ends in the kernel": ("icmp", set()),
}


@pytest.mark.parametrize(("protocol", "last"), PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_each_protocol_is_followed_to_its_end(lab, protocol, last):
    trace = lab.follow("client", "server", protocol=protocol, port=5001).packets[0]
    ends = {Step.RECEIVE_QUEUE, Step.DATA_READY}
    assert trace.packet.protocol == protocol
    assert set(trace.steps("server")) & ends == last
    assert Step.L4_RECEIVE in trace.steps("server")


@pytest.mark.parametrize(("protocol", "last"), PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_nothing_is_implied_and_nothing_unexplained_on_the_whole_way(lab, protocol, last):
    """Through tunnel, bridge and both nodes; the packet, its answer, and TCP's own segments."""
    for trace in lab.follow("client", "server", protocol=protocol, port=5001).packets:
        told = {hop.evidence: hop for hop in trace.hops}
        assert Evidence.IMPLIED not in told, (trace.packet, told[Evidence.IMPLIED])
        unsaid = [hop for hop in trace.hops if hop.reason.startswith("no evidence")]
        assert not unsaid, (trace.packet, unsaid[0])


@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
def test_the_lines_are_in_order_of_kernel_time(lab, protocol):
    for trace in lab.follow("client", "server", protocol=protocol, port=5001).packets:
        times = [hop.ns for hop in trace.taken]
        assert times == sorted(times)


def test_nobody_listening_is_a_drop_with_the_answer_beside_it(lab):
    trace = lab.follow("client", "server", port=5999, listen=False).packets[0]
    (drop,) = trace.drops
    assert (drop.step, drop.drop_reason, drop.namespace) == (
        Step.L4_RECEIVE, "NO_SOCKET", "server",
    )  # fmt: skip
    assert any(hop.hook == "icmp_send" for hop in trace.hops)


def test_a_recording_holds_both_directions(lab):
    with lab.trace() as recording, lab.pod("server").serve_udp(5002):
        lab.pod("client").send_udp(lab.pod("server"), 5002)
    there = recording.of("udp", sender="client", receiver="server")
    back = recording.of("udp", sender="server", receiver="client")
    assert there.delivered
    assert back.delivered
    assert recording.drops == ()


def test_the_send_side_is_seen_up_to_the_device(udp_trace):
    hooks = [hop.hook for hop in udp_trace.at(namespace="client") if hop.side is Side.SEND]
    wanted = ["route_output", "nf_output", "nf_postrouting", "dev_queue", "dev_xmit"]
    assert [hook for hook in hooks if hook in wanted] == wanted


def test_what_stands_on_a_port_of_the_bridge_is_met_before_the_bridge(lab):
    def ingress():
        hops = lab.follow("client", "server").packets[0].at(namespace="underlay")
        return next(hop for hop in hops if hop.step is Step.NETFILTER_INGRESS)

    assert not ingress().taken
    lab.underlay.run(["nft", "add", "table", "netdev", "t"], check=True)
    chain = "add chain netdev t c { type filter hook ingress device alpha priority 0 ; }"
    try:
        lab.underlay.run(["nft", chain], check=True)
        assert ingress().taken
    finally:
        lab.underlay.run(["nft", "delete", "table", "netdev", "t"], check=True)
    assert not ingress().taken


def test_ip_never_sees_an_arp_message_though_routes_are_asked_for_it(lab):
    alpha = lab.node("alpha")
    alpha.run(["ip", "neigh", "flush", "dev", "eth0"], check=True)
    with lab.trace() as seen:
        assert alpha.ping(lab.node("beta")).ok
    asked = [trace for trace in seen.packets if trace.packet.protocol == "arp"]
    assert any(hop.hook == "arp_rcv" for trace in asked for hop in trace.taken)
    for trace in asked:
        assert not [hop for hop in trace.taken if hop.step and hop.step >= Step.IP_RCV]
        assert all(hop.device for hop in trace.hops if hop.side is Side.RECEIVE)


@pytest.mark.parametrize("routing", ["legacy", "bpf"])
def test_a_flow_that_is_masqueraded_is_followed_both_ways(routing):
    """Through both translations, with the datapath's own word in every hook of its own."""
    with Lab(replace(TOPOLOGY, options=Options(host_routing=routing))) as lab:
        assert lab.pod("client").ping(lab.world).ok
        packets = lab.follow("client", "world", protocol="tcp", port=5001).packets
    for trace in packets:
        assert not [hop for hop in trace.hops if hop.evidence is Evidence.IMPLIED], trace.packet
    back = [trace for trace in packets if trace.packet.sender == "world"]
    assert {"SYN,ACK", "ACK,FIN"} <= {trace.packet.info for trace in back}
    for trace in back:
        assert (trace.taken[0].namespace, trace.taken[-1].namespace) == ("world", "client")
        assert [hop.program for hop in trace.at("alpha", device="eth0") if hop.program] == [
            "cil_from_netdev"
        ]


def test_a_frame_that_a_bridge_floods_has_all_its_steps_explained():
    with Lab(TOPOLOGY) as lab:  # whose bridge has not seen a node yet
        trace = follow_at(lab, "client", "server", Shot(), "to-netdev").packets[0]
    port = [hop for hop in trace.at("", device="alpha") if hop.side is Side.RECEIVE]
    assert trace.delivered
    assert {hop.step for hop in port} >= set(Step)
    assert not [hop for hop in port if hop.reason.startswith("no evidence")]


def test_that_the_destination_is_no_service_is_told_where_it_was_asked(lab, udp_trace):
    def told(trace):
        return [
            (hop.namespace, hop.program, look_up.value)
            for hop in trace.taken
            for look_up in hop.lookups
            if look_up.map == "cilium_lb4_services_v2" and hop.namespace == "alpha"
        ]

    outside = lab.follow("client", "world").packets[0]
    assert told(outside)[0] == ("alpha", "cil_from_container", None)
    # no service has a pod's address: nobody asks about one
    assert told(udp_trace) == []


def test_a_filter_knows_every_hook_and_verdict_of_the_trace(udp_trace):
    assert {hop.hook for hop in udp_trace.taken} <= HOOKS
    assert {hop.verdict for hop in udp_trace.taken} <= VERDICTS | {""}
