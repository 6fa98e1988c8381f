"""The single-packet harness reports what a hook did, and nothing it did not see."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from lab.datapath.events import DropEvent, TraceEvent
from lab.datapath.testrun import Datapath, Tunnel, Verdict
from lab.errors import InputError, KernelError
from lab.layouts.attach import ATTACH_POINTS, Hook
from lab.layouts.core import EndpointInfo, EndpointKey, IpcacheKey, RemoteEndpointInfo
from lab.packets import frames

pytestmark = pytest.mark.live

POD, PEER = "10.0.1.10", "10.0.2.10"
POD_MAC, LXC_MAC = "02:00:0a:00:01:0a", "06:00:0a:00:01:0a"


def udp(source=POD, destination=PEER):
    return frames.udp((POD_MAC, LXC_MAC), (source, destination), (1000, 53), b"hello")


def know_peer(datapath):
    value = RemoteEndpointInfo(sec_identity=300, tunnel_endpoint=IPv4Address("172.30.0.2"))
    datapath.map("cilium_ipcache").update(IpcacheKey.of(IPv4Network(PEER)), value)


def know_pod(datapath):
    value = EndpointInfo(ifindex=10, lxc_id=266, mac=POD_MAC, node_mac=LXC_MAC, sec_id=256)
    datapath.map("cilium_lxc").update(EndpointKey(ip4=IPv4Address(POD)), value)


def test_one_map_entry_changes_the_packets_fate(datapath):
    before = datapath.run(Hook.FROM_CONTAINER, udp())
    know_peer(datapath)
    after = datapath.run(Hook.FROM_CONTAINER, udp())
    assert (before.verdict, after.verdict) == (Verdict.PASS, Verdict.REDIRECT)
    assert after.redirect_ifindex == 5
    assert after.event(TraceEvent).src_identity == 256


def test_a_drop_has_the_reason_the_datapath_told_and_counted(datapath):
    result = datapath.run(Hook.FROM_CONTAINER, udp(source="10.0.1.99"))
    assert (result.verdict, result.drop_reason) == (Verdict.DROP, "DROP_INVALID_SIP")
    event = result.event(DropEvent)
    assert (event.text, event.file) == ("Invalid source ip", "bpf_lxc.c")
    assert [(m.name, m.packets) for m in result.metrics] == [("DROP_INVALID_SIP", 1)]


def test_one_runs_events_and_counters_are_its_own(datapath):
    datapath.run(Hook.FROM_CONTAINER, udp(source="10.0.1.99"))
    second = datapath.run(Hook.FROM_CONTAINER, udp(destination="8.8.8.8"))
    assert second.drop_reason is None
    assert not second.event(DropEvent)
    assert {m.name for m in second.metrics} == {"REASON_FORWARDED"}


TUNNELS = {
    "the VNI is the sender's identity": (Tunnel(vni=300), Verdict.REDIRECT, None),
    "nobody may claim to be a host": (Tunnel(vni=1), Verdict.DROP, "DROP_INVALID_IDENTITY"),
    "without a tunnel there is no key": (None, Verdict.DROP, "DROP_NO_TUNNEL_KEY"),
}


@pytest.mark.parametrize(("tunnel", "verdict", "reason"), TUNNELS.values(), ids=TUNNELS.keys())
def test_from_overlay_sees_the_tunnel(datapath, tunnel, verdict, reason):
    datapath.load("bpf_lxc")
    know_pod(datapath)
    result = datapath.run(Hook.FROM_OVERLAY, udp(PEER, POD), tunnel=tunnel)
    assert (result.verdict, result.drop_reason) == (verdict, reason)


def test_the_packet_comes_back_as_it_left(datapath):
    datapath.load("bpf_lxc")
    know_pod(datapath)
    result = datapath.run(Hook.FROM_OVERLAY, udp(PEER, POD), tunnel=Tunnel(vni=300))
    assert result.packet[:12] == bytes.fromhex((POD_MAC + LXC_MAC).replace(":", ""))
    assert (udp()[22], result.packet[22]) == (64, 63), "one hop less to live"


def test_a_mark_goes_in_and_comes_out(datapath):
    datapath.load("bpf_lxc", enable_endpoint_routes=True)
    identity_in_mark = datapath.run(Hook.TO_CONTAINER, udp(PEER, POD), mark=300 << 16 | 0x0F00)
    assert identity_in_mark.event(TraceEvent).src_identity == 300
    to_the_stack = datapath.run(Hook.FROM_CONTAINER, udp(destination="8.8.8.8"))
    assert to_the_stack.mark == 256 << 16 | 0x0F00


def test_each_instance_is_configured_for_itself(datapath):
    datapath.load("bpf_lxc", "one")
    datapath.load("bpf_lxc", "two", endpoint_ipv4=IPv4Address("10.0.1.11"), endpoint_id=267)
    one = datapath.run(Hook.FROM_CONTAINER, udp(source="10.0.1.11"), instance="one")
    two = datapath.run(Hook.FROM_CONTAINER, udp(source="10.0.1.11"), instance="two")
    assert (one.drop_reason, two.drop_reason) == ("DROP_INVALID_SIP", None)


@pytest.mark.parametrize("point", ATTACH_POINTS, ids=lambda p: f"{p.hook.value}-{p.role.value}")
def test_every_hook_can_be_run(datapath, point):
    result = datapath.run(point.hook, udp())
    assert result.verdict is not Verdict.OTHER


WRONG = {
    "an unknown program": (lambda d: d.run("cil_nothing", udp()), InputError, "cil_nothing"),
    "an unknown map": (lambda d: d.map("cilium_nothing"), InputError, "cilium_nothing"),
    "an unknown object": (lambda d: d.load("bpf_nothing"), InputError, "bpf_nothing"),
    "an unknown field of the packet's context": (
        lambda d: d.run(Hook.FROM_CONTAINER, udp(), colour=1),
        InputError,
        "skb->colour",
    ),
    "a frame shorter than an Ethernet header": (
        lambda d: d.run(Hook.FROM_CONTAINER, b"short"),
        KernelError,
        "5-byte packet",
    ),
}


@pytest.mark.parametrize(("action", "error", "words"), WRONG.values(), ids=WRONG.keys())
def test_misuse_is_named(datapath, action, error, words):
    with pytest.raises(error, match=words):
        action(datapath)


def test_everything_is_given_back():
    with Datapath() as datapath:
        datapath.run(Hook.FROM_CONTAINER, udp())
        program = datapath.program(Hook.FROM_CONTAINER)
    assert program.fd == -1
