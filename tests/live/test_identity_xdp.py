"""A packet stays itself where XDP hands it on: through maps, to other processors, in the stack.

The node's end of the client's cable redirects. The server takes frames only with NAPI, and a frame
has no room for a checksum that is still to be made: both ends are set up for that.
"""

import json

import pytest

from lab import Node, Pod, Topology
from lab.observe.absent import Why
from lab.observe.recording import Shot, follow
from lab.observe.why import diagnose
from lab.observe.xdp import NOT_TAKEN
from lab.trace import Evidence, Step
from tests.live.following import acquainted, buffers, changed, facts, host_device, one_packet
from tests.live.objects import compiled

pytestmark = pytest.mark.live

TOPOLOGY = Topology(
    name="identity-xdp",
    nodes=(Node("alpha"),),
    pods=(Pod("client", node="alpha"), Pod("server", node="alpha")),
)
SERVER_DEVICE = 11
"""The plan gives the node's second pod this interface."""
PROGRAMS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} to_device SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} to_processor SEC(".maps");
SEC("xdp/back") int back(struct xdp_md *ctx) { return XDP_TX; }
SEC("xdp/onward") int onward(struct xdp_md *ctx) { return bpf_redirect(11, 0); }
SEC("xdp/by_device") int by_device(struct xdp_md *ctx)
{
	return bpf_redirect_map(&to_device, 0, 0);
}
SEC("xdp/by_processor") int by_processor(struct xdp_md *ctx)
{
	return bpf_redirect_map(&to_processor, 0, 0);
}
char LICENSE[] SEC("license") = "GPL";
"""
VALUES = {"to_device": SERVER_DEVICE, "to_processor": 64}
"""An interface; how many packets wait for processor 0 at most."""


@pytest.fixture(scope="module")
def lab():
    with acquainted(TOPOLOGY) as lab:
        yield lab


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return str(compiled(tmp_path_factory.mktemp("xdp"), "onward", PROGRAMS))


def switched(place, device, what):
    return place, f"ethtool -K {device} {what} on", f"ethtool -K {device} {what} off"


@pytest.fixture(scope="module")
def past_the_node(lab):
    """The client sends to the server's own MAC address, with checksums made; the server polls."""
    client, server = lab.pod("client"), lab.pod("server")
    mac = facts(lab, "server").mac
    with changed(
        (client, "ethtool -K eth0 tx off", "ethtool -K eth0 tx on"),
        switched(server, "eth0", "gro"),
        (client, f"ip neigh replace {server.address} lladdr {mac} dev eth0",
         f"ip neigh del {server.address} dev eth0"),
        (client, f"ip route add {server.address} dev eth0", f"ip route del {server.address}"),
    ):  # fmt: skip
        yield


def fill(node, name):
    """Put the one entry into a map of the program on the client's cable."""
    told = json.loads(node.run(["bpftool", "-j", "net"]).stdout)[0]["xdp"]
    (program,) = {one["id"] for one in told if one["ifindex"] == SERVER_DEVICE - 1}
    maps = json.loads(node.run(["bpftool", "-j", "prog", "show", "id", str(program)]).stdout)
    for number in maps["map_ids"]:
        if (
            json.loads(node.run(["bpftool", "-j", "map", "show", "id", str(number)]).stdout).get(
                "name"
            )
            == name
        ):
            value = [str(byte) for byte in VALUES[name].to_bytes(4, "little")]
            node.run(["bpftool", "map", "update", "id", str(number), "key", *"0000",
                      "value", *value], check=True)  # fmt: skip
            return number
    raise AssertionError(f"no map {name}")


def at_client(lab, mode, section, programs):
    device = host_device(lab, "client")
    on = f"ip link set dev {device} {mode} obj {programs} sec xdp/{section}"
    return changed((lab.node("alpha"), on, f"ip link set dev {device} {mode} off"))


def sent(lab, mode, section, programs, filled="", **shot):
    """The trace of a packet while a program is on the client's cable, and the map's number."""
    with at_client(lab, mode, section, programs):
        number = fill(lab.node("alpha"), filled) if filled else 0
        return one_packet(lab, **shot), number


def asked(trace, step):
    """The line of the node's program."""
    (hop,) = (hop for hop in trace.at(namespace="alpha") if hop.step is step and hop.taken)
    return hop


def visits(trace):
    return [hop.device for hop in trace.taken if hop.step is Step.RECEIVE_SKB]


HANDED_ON = {
    "a device": ("onward", "", "to device 11"),
    "a map of devices": ("by_device", "to_device", "by place 0 of devmap {}"),
}


@pytest.mark.parametrize(("section", "name", "told"), HANDED_ON.values(), ids=HANDED_ON.keys())
def test_a_frame_redirected_by(lab, programs, past_the_node, section, name, told):
    """In another buffer it comes into the other pod, and nothing between has seen it."""
    trace, number = sent(lab, "xdpdrv", section, programs, name)
    hop = asked(trace, Step.XDP_DRIVER)
    assert (hop.verdict, hop.program, hop.evidence) == ("redirect", section, Evidence.TRACEPOINT)
    assert told.format(number) in hop.reason
    assert trace.delivered
    assert visits(trace) == ["eth0"]
    assert len(set(buffers(trace))) == 2


@pytest.mark.parametrize(("section", "name", "told"), HANDED_ON.values(), ids=HANDED_ON.keys())
def test_a_buffer_redirected_in_the_stack_by(lab, programs, past_the_node, section, name, told):
    """Step 6 hands the packet on as it is, and may say so when it is there already."""
    trace, number = sent(lab, "xdpgeneric", section, programs, name)
    hop = asked(trace, Step.GENERIC_XDP)
    assert (hop.verdict, hop.program, hop.evidence) == ("redirect", section, Evidence.TRACEPOINT)
    assert told.format(number) in hop.reason
    assert trace.delivered
    assert visits(trace) == [host_device(lab, "client"), "eth0"]
    assert len(set(buffers(trace))) == 1
    assert not [hop for hop in trace.taken if hop.step is Step.XDP_DRIVER]


def test_a_frame_handed_to_a_processor_goes_on_from_the_same_device(lab, programs):
    trace, number = sent(lab, "xdpdrv", "by_processor", programs, "to_processor")
    hop = asked(trace, Step.XDP_DRIVER)
    assert hop.verdict == "redirect"
    assert f"to processor 0, by cpumap {number}" in hop.reason
    assert visits(trace) == [host_device(lab, "client"), "eth0"]
    received = next(hop for hop in trace.taken if hop.step is Step.RECEIVE_SKB)
    assert received.cpu == 0
    assert trace.delivered
    assert len(set(buffers(trace))) == 2


def test_a_buffer_handed_to_a_processor_comes_in_again(lab, programs):
    """The second time by a thread's hand, not by a poll; other devices' packets are polled."""
    device = host_device(lab, "client")
    trace, number = sent(lab, "xdpgeneric", "by_processor", programs, "to_processor")
    hop = asked(trace, Step.GENERIC_XDP)
    assert hop.verdict == "redirect"
    assert f"to processor 0, by cpumap {number}" in hop.reason
    assert visits(trace) == [device, device, "eth0"]
    first, second = (h for h in trace.hops if h.step is Step.NAPI_POLL and h.device == device)
    assert first.taken
    assert Why.OTHER_CPU.told(second.reason)
    assert trace.delivered
    assert len(set(buffers(trace))) == 1


def test_a_buffer_sent_back_by_the_stack_is_met_where_it_came_from(lab, programs):
    """No event tells: the packet comes in at the other end and nobody sent it."""
    trace, _ = sent(lab, "xdpgeneric", "back", programs, listen=False, timeout_s=0.2)
    hop = asked(trace, Step.GENERIC_XDP)
    assert (hop.verdict, hop.program) == ("tx", "back")
    assert visits(trace) == [host_device(lab, "client"), "eth0"]
    (drop,) = trace.drops
    # it carries the node's MAC address, not the client's
    assert (drop.namespace, drop.drop_reason) == ("client", "OTHERHOST")


def test_an_empty_place_in_a_map_aborts(lab, programs, past_the_node):
    for mode, step in (("xdpdrv", Step.XDP_DRIVER), ("xdpgeneric", Step.GENERIC_XDP)):
        trace, _ = sent(lab, mode, "by_device", programs, timeout_s=0.2)
        (drop,) = trace.drops
        assert drop.step is step
        assert "xdp_exception" in drop.reason


def test_a_device_that_takes_no_frame_is_told_as_the_end(lab, programs, past_the_node):
    """The other end's MTU is too small for it: only the bulk that leaves last says so."""
    small = (lab.pod("server"), "ip link set eth0 mtu 600", "ip link set eth0 mtu 1500")
    with changed(small), at_client(lab, "xdpdrv", "onward", programs):
        shot = Shot(payload=b"x" * 900, timeout_s=0.2)
        recording = follow(lab, "client", "server", shot)
    answer = diagnose(recording, "client")
    (drop,) = recording.packets[0].drops
    assert (drop.step, drop.drop_reason) == (Step.XDP_DRIVER, NOT_TAKEN)
    assert answer.known
    assert "other end's MTU" in answer.paragraph
