"""One packet at one place: the lines about it, and how records become lines."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lab.observe.drops import Drop
from lab.observe.headers import ICMP, TCP, UDP, network_bytes, outermost
from lab.observe.identify import Journey
from lab.observe.names import Names, Place
from lab.observe.records import Config, Kind, Link, Record
from lab.trace import Evidence, Hop, LookUp, Side, Step
from lab.trace.own import At, OwnEvent

# the first is left by a tail call and seldom stands in a stack
DELIVER = ("ip_local_deliver", "ip_local_deliver_finish")
TRANSPORT: dict[int, tuple[str, ...]] = {
    UDP: ("udp_rcv", "__udp4_lib_rcv", "udp_unicast_rcv_skb", "udp_queue_rcv_skb",
         "udp_queue_rcv_one_skb"),
    TCP: ("tcp_v4_rcv", "tcp_v4_do_rcv", "tcp_rcv_established", "tcp_rcv_state_process",
        "tcp_data_queue"),
    2: ("igmp_rcv",),
    ICMP: ("icmp_rcv", "icmp_echo", "icmp_reply", "raw_local_deliver", "raw_rcv"),
}  # fmt: skip
"""Functions of each protocol's receive path, the entry first."""

_STACK_PROBES = {
    Kind.ROUTE: "on_route",
    Kind.TCP_SEGMENT: "on_tcp_segment",
    Kind.XFRM_INPUT: "on_xfrm_input",
}


_ARRIVES = frozenset({Kind.NETIF_RX, Kind.GRO_RECEIVE, Kind.RECEIVE_SKB})


@dataclass(slots=True)
class Walk:
    """One packet at one place: the lines so far and what explains the missing ones.

    Attributes:
        config: how the receiving device was set up, if known.
        drop: where it ended, if it was dropped here.
        early: it carried a socket already when it entered the INPUT chains.
        request: a listener made a request socket of it.
        ports: of its outermost transport header here.
        destination: address in its outermost header here, as look-ups have it.
        policy_used: when an IPsec policy was last asked before the transport had the packet,
            seconds since 1970; None if that was not seen.
        head: the buffer's storage when it entered the stack.
        poll: name of the poll function it came with, empty if unknown.
        xdp: name of the device's XDP program, empty if none is known.
        cut_from: number of the large packet that it was cut out of here, in the transport.
        cut_into: numbers of the packets that it was cut into here, in words.
        arp: it is an ARP message, which IP never sees.
        bridged: a bridge took the frame off its port here.
        opened: IPsec decrypted it here: what is seen next came out of it.
        reinjected: it came out of decryption in place, without being received again.
    """

    place: Place
    netns: int
    ifindex: int
    side: Side
    protocol: int = 0
    hops: list[Hop] = field(default_factory=list)
    config: Config = Config(0)
    drop: Drop | None = None
    poll: str = ""
    first_ns: int = 0
    gro: str = ""
    early: bool = False
    request: bool = False
    ports: tuple[int, int] = (0, 0)
    destination: int = 0
    policy_used: int | None = None
    head: int = 0
    xdp: str = ""
    cut_from: int | None = None
    cut_into: str = ""
    arp: bool = False
    bridged: bool = False
    opened: bool = False
    reinjected: bool = False

    def last(self, *hooks: str) -> int | None:
        """Index of the newest line of one of these hooks, None if there is none."""
        for index in range(len(self.hops) - 1, -1, -1):
            if self.hops[index].hook in hooks:
                return index
        return None

    def judge(self, followed: bool, tunnel: bool = False) -> None:
        """Give programs without a word of their own the verdict that shows in what came next.

        Args:
            followed: the packet was seen again elsewhere.
            tunnel: there because a tunnel's socket took it here and unpacked it.
        """
        for index, hop in enumerate(self.hops):
            if not hop.program or hop.verdict:
                continue
            went_on = tunnel or any(later.evidence.taken for later in self.hops[index + 1 :])
            if went_on or followed:
                verdict = "pass" if went_on else "redirect"
                self.hops[index] = replace(hop, verdict=verdict)

    @property
    def generic(self) -> bool:
        """Whether generic XDP is asked about the packet here (skb->redirected is not)."""
        asked = Config.XDP_GENERIC in self.config and Config.REDIRECTED not in self.config
        return asked and self.taken(Step.RECEIVE_SKB)

    def taken(self, step: Step) -> bool:
        """Whether a line proves this step."""
        return any(hop.step is step and hop.taken for hop in self.hops)


class Builder:
    """Walks under construction, and the lines put into them.

    Attributes:
        walks: in order of time.
    """

    def __init__(self, journey: Journey, names: Names) -> None:
        self.names = names
        self.walks: list[Walk] = []
        self.journey = journey

    # -- where ----------------------------------------------------------------------------------

    def walk(self, record: Record, side: Side) -> Walk:
        """Return the walk that a record belongs to: the current one, or a new one elsewhere."""
        walk = self._current(record, side) or self._another(record, side)
        if (packet := outermost(record)) is not None:
            walk.protocol, walk.ports = packet.protocol, packet.ports
            walk.arp = not packet.protocol
            walk.destination = int.from_bytes(packet.destination.packed, "little")
        return walk

    def configured(self, record: Record, walk: Walk) -> Config:
        """Return what stands in the packet's way; clsact without a filter is no classifier."""
        sides = ("ingress", "tcx ingress")
        if any((walk.netns, walk.ifindex, side) in self.names.hooks for side in sides):
            return record.config
        return record.config & ~Config.TC_INGRESS

    def _current(self, record: Record, side: Side) -> Walk | None:
        ifindex = record.ifindex
        current = self.walks[-1] if self.walks else None
        # what comes out of decryption goes a way of its own, in the same buffer
        if current and current.opened and record.packet:
            return None
        if current and current.side is side and current.netns == record.netns:
            # netif_rx begins a reception: a second one is another visit of the same device
            again = record.kind is Kind.NETIF_RX and bool(current.hops)
            if not again and ifindex in (0, current.ifindex):
                return current
            # a sender asks for its route before any device is known
            if not current.ifindex and side is Side.SEND:
                current.ifindex, current.place = ifindex, self.names.place(record.netns, ifindex)
                return current
        return None

    def _another(self, record: Record, side: Side) -> Walk:
        ifindex = record.ifindex
        walk = Walk(self.names.place(record.netns, ifindex), record.netns, ifindex, side)
        walk.first_ns = record.ns
        attached = self.names.hooks.get((record.netns, ifindex, "xdp"))
        walk.xdp = attached.name if attached else ""
        out_of = self.walks[-1] if self.walks else None
        walk.reinjected = bool(out_of and out_of.opened and record.kind not in _ARRIVES)
        self.walks.append(walk)
        return walk

    def add(
        self,
        record: Record,
        walk: Walk,
        hook: str,
        probe: str,
        *,
        step: Step | None = None,
        evidence: Evidence = Evidence.TRACEPOINT,
        reason: str = "",
        verdict: str = "",
        lookups: tuple[LookUp, ...] = (),
    ) -> Hop:
        """Append one line about a record; ``probe`` names the program that wrote it."""
        buffer = bool(record.packet)
        hop = Hop(
            step=step,
            hook=hook,
            evidence=evidence,
            side=walk.side,
            node=walk.place.node,
            namespace=walk.place.namespace,
            device=walk.place.device,
            ifindex=walk.ifindex,
            reason=reason,
            verdict=verdict,
            lookups=lookups,
            mark=record.mark if buffer else None,
            identity=identity_of(record) if buffer else None,
            packet=self.journey.number,
            skb=record.skb,
            link_layer="ethernet" if record.link is Link.ETHERNET else "ip",
            before=record.packet or None,
            length=record.length if buffer else 0,
            ns=record.ns,
            cpu=record.cpu,
            object=self.names.object(probe),
            stack=self.names.frames(record.stack),
        )
        walk.hops.append(hop)
        return hop

    def add_own(self, event: OwnEvent, walk: Walk, step: Step | None) -> None:
        """Append what a probe of the user's own saw, in its own words."""
        on = event.target or "the device"
        walk.hops.append(
            Hop(
                step=step,
                hook=event.hook,
                evidence=event.at.evidence,
                side=walk.side,
                node=walk.place.node,
                namespace=walk.place.namespace,
                device=walk.place.device,
                ifindex=walk.ifindex,
                reason=f"your own probe {event.function or event.hook} on {on}",
                values=event.values,
                packet=self.journey.number,
                skb=event.skb,
                ns=event.ns,
                cpu=event.cpu,
                object=event.object,
            )
        )

    def by_stack(self, record: Record, walk: Walk, step: Step, hook: str, name: str) -> None:
        """Prove a step by a function on the stack, replacing a weaker proof of the same step."""
        probe = _STACK_PROBES.get(record.kind, "on_data_ready")
        reason = f"{name} is on the call stack"
        index = walk.last(hook)
        if index is None:
            self.add(record, walk, hook, probe, step=step, evidence=Evidence.STACK, reason=reason)
        elif walk.hops[index].evidence.rank > Evidence.STACK.rank:
            walk.hops[index] = replace(
                walk.hops[index],
                evidence=Evidence.STACK,
                reason=reason,
                object=self.names.object(probe),
                stack=self.names.frames(record.stack),
            )


_STEPS = {step.function: step for step in Step}


def step_of(event: OwnEvent, walk: Walk) -> Step | None:
    """Return the step of the walk that an event of the user's own probe proves, if it does."""
    if walk.side is not Side.RECEIVE:
        return None
    if event.at is At.TC_INGRESS:
        return Step.TC_INGRESS
    if event.at is At.XDP:
        return Step.GENERIC_XDP if walk.taken(Step.RECEIVE_SKB) else Step.XDP_DRIVER
    if event.target == TRANSPORT.get(walk.protocol, ("-",))[0]:
        return Step.L4_RECEIVE
    return _STEPS.get(event.target)


def identity_of(record: Record) -> int | None:
    """Return the security identity that travels with the packet: VXLAN identifier or mark."""
    outer = outermost(record)
    data = network_bytes(record)
    if outer is not None and outer.wraps and len(data) >= 36:
        # behind 20 bytes of IPv4, 8 of UDP, 4 of VXLAN flags
        return int.from_bytes(data[32:35], "big")
    # Cilium's MARK_MAGIC_IDENTITY, _OVERLAY, _PROXY_INGRESS, _PROXY_EGRESS: bits 16 to 23 of the
    # identity are in the low byte, the others in the upper half (get_identity())
    if record.mark & 0x0F00 in (0x0F00, 0x0400, 0x0A00, 0x0B00):
        return (record.mark & 0xFF) << 16 | record.mark >> 16
    return None
