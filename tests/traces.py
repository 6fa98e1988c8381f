"""Small traces built by hand, as input for what draws and compares traces."""

import struct
from ipaddress import IPv4Address

from lab.trace import Evidence, Hop, LookUp, PacketId, SendHook, Side, Step, Trace

PACKET = PacketId(
    cookie="00000000000000ab", protocol="udp", source="10.0.1.10", destination="10.0.2.10",
    source_port=40000, destination_port=5000, length=63, sender="lab/client",
    receiver="lab/server",
)  # fmt: skip


def ipv4(source, destination, payload, *, ttl=64, protocol=17):
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, ttl, protocol, 0) + (
        addresses + payload
    )


def udp(source, destination, payload):
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def ethernet(source, destination, payload, kind=0x0800):
    return bytes.fromhex(destination + source) + struct.pack("!H", kind) + payload


def frame(*, ttl=64, source="02000a00010a", destination="06000a00010a"):
    datagram = udp(40000, 5000, b"hello" + b"labCOOKi" + bytes(7) + b"\xab")
    return ethernet(source, destination, ipv4("10.0.1.10", "10.0.2.10", datagram, ttl=ttl))


def vxlan(inner, vni=256):
    tunnel = udp(49321, 8472, struct.pack("!BxxxI", 8, vni << 8) + inner)
    return ethernet("0200ac1e0001", "0200ac1e0002", ipv4("172.30.0.1", "172.30.0.2", tunnel))


def hop(us, place, *, step=None, evidence=Evidence.TRACEPOINT, hook="", **rest):
    node, namespace, device = place
    side = rest.pop("side", Side.RECEIVE if step else Side.SEND)
    return Hop(
        step=step, hook=hook or (step.function if step else ""), evidence=evidence, side=side,
        node=node, namespace=namespace, device=device, us=us, ns=int(1_000_000 + us * 1000),
        object=rest.pop("object", "prog 7"), **rest,
    )  # fmt: skip


def skipped(place, step, reason):
    node, namespace, device = place
    return Hop(
        step=step, hook=step.function, evidence=Evidence.NOT_TAKEN, reason=reason, node=node,
        namespace=namespace, device=device,
    )  # fmt: skip


CLIENT = ("alpha", "client", "eth0")
LXC = ("alpha", "alpha", "lxcclient")
OVERLAY = ("alpha", "alpha", "cilium_vxlan")
UPLINK = ("alpha", "alpha", "eth0")
FAR_UPLINK = ("beta", "beta", "eth0")
FAR_OVERLAY = ("beta", "beta", "cilium_vxlan")
SERVER = ("beta", "server", "eth0")


def sent():
    data = {"before": frame(), "length": 63, "mark": 0}
    return (
        hop(-9.0, CLIENT, hook=SendHook.SOCKET, **data),
        hop(0.0, CLIENT, hook=SendHook.DEV_QUEUE, **data),
        hop(4.5, CLIENT, hook=SendHook.DEV_XMIT, **data),
        hop(17.1, LXC, step=Step.RECEIVE_SKB, **data),
    )


LOOKUPS = (
    LookUp(map="cilium_lxc", key="10.0.2.10"),
    LookUp(map="cilium_ipcache", key="10.0.2.10/32", value="identity 258, tunnel 172.30.0.2"),
)


def through_the_tunnel():
    data = {"before": frame(), "after": frame(), "length": 63, "identity": 256}
    outer = {"before": vxlan(frame()), "length": 113, "mark": 0x1000F00, "identity": 256}
    return (
        hop(20.2, LXC, step=Step.TC_INGRESS, evidence=Evidence.PROGRAM, hook="from-container",
            program="cil_from_container", verdict="redirect", ct_state="new", lookups=LOOKUPS,
            **data),
        *(skipped(LXC, Step.of(n), "redirected at step 8") for n in range(9, 20)),
        hop(31.0, OVERLAY, hook=SendHook.TC_EGRESS, evidence=Evidence.PROGRAM,
            program="cil_to_overlay", verdict="pass", **data),
        hop(38.4, UPLINK, hook=SendHook.TC_EGRESS, evidence=Evidence.PROGRAM,
            program="cil_to_netdev", verdict="pass", **outer),
        hop(55.0, FAR_UPLINK, step=Step.RECEIVE_SKB, **outer),
        hop(57.3, FAR_UPLINK, step=Step.TC_INGRESS, evidence=Evidence.PROGRAM,
            hook="from-netdev", program="cil_from_netdev", verdict="pass", **outer),
        hop(61.0, FAR_UPLINK, step=Step.IP_RCV, evidence=Evidence.IMPLIED),
        hop(66.8, FAR_OVERLAY, step=Step.TC_INGRESS, evidence=Evidence.PROGRAM,
            hook="from-overlay", program="cil_from_overlay", verdict="redirect", **data),
    )  # fmt: skip


def received():
    data = {"before": frame(ttl=63), "length": 63, "mark": 0}
    stack = {"evidence": Evidence.STACK, **data}
    return (
        hop(72.0, SERVER, step=Step.NAPI_POLL, evidence=Evidence.STACK),
        skipped(SERVER, Step.XDP_DRIVER, "no XDP program on eth0"),
        skipped(SERVER, Step.CLEAN_RX, "veth hands the buffer over"),
        skipped(SERVER, Step.GRO_RECEIVE, "no GRO: veth without NAPI"),
        hop(74.0, SERVER, step=Step.RECEIVE_SKB, **data),
        skipped(SERVER, Step.GENERIC_XDP, "no XDP program on eth0"),
        skipped(SERVER, Step.CHECK_TAPS, "no packet socket is open"),
        skipped(SERVER, Step.TC_INGRESS, "no program at tc ingress of eth0"),
        skipped(SERVER, Step.NETFILTER_INGRESS, "no ingress chain"),
        hop(77.0, SERVER, step=Step.IP_RCV, **stack),
        hop(78.0, SERVER, step=Step.NETFILTER_PREROUTING, evidence=Evidence.PROGRAM, **data),
        hop(79.0, SERVER, step=Step.IP_RCV_FINISH, **stack),
        hop(80.0, SERVER, step=Step.IP_ROUTING, **data),
        hop(83.0, SERVER, step=Step.IP_LOCAL_DELIVER, **stack),
        skipped(SERVER, Step.XFRM_POLICY, "UDP makes its xfrm check later"),
        hop(87.0, SERVER, step=Step.L4_RECEIVE, **stack),
        skipped(SERVER, Step.XFRM_POLICY_L4, "no policy is installed"),
        hop(93.0, SERVER, step=Step.RECEIVE_QUEUE, **data),
        hop(94.0, SERVER, step=Step.DATA_READY, **data),
    )


DELIVERED = Trace(
    packet=PACKET, hops=(*sent(), *through_the_tunnel(), *received()), topology="two-nodes",
    kernel="6.18.44",
)  # fmt: skip

DROP = hop(
    21.0, LXC, step=Step.TC_INGRESS, evidence=Evidence.PROGRAM, hook="from-container",
    program="cil_from_container", verdict="drop", drop_reason="Invalid source ip", identity=256,
    before=frame(), length=63,
)  # fmt: skip

REFUSED = Trace(
    packet=PACKET, topology="two-nodes", kernel="6.18.44",
    hops=(*sent(), DROP, *(skipped(LXC, Step.of(n), "dropped at step 8") for n in range(9, 20))),
)  # fmt: skip
