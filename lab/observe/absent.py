"""Why a packet did not take a step: from how the device was set up, and from how the walk ended."""

from __future__ import annotations

import re
from dataclasses import replace
from enum import StrEnum

from lab.observe.arrival import ARP
from lab.observe.headers import CHECK_LATER, ESP, ICMP, TCP, UDP
from lab.observe.records import Config
from lab.observe.walk import Walk
from lab.trace import Evidence, Hop, Side, Step

HOOK_OF_STEP = {
    Step.NAPI_POLL: "napi_poll",
    Step.XDP_DRIVER: "xdp",
    Step.CLEAN_RX: "clean_rx",
    Step.GRO_RECEIVE: "gro_receive",
    Step.RECEIVE_SKB: "receive_skb",
    Step.GENERIC_XDP: "generic_xdp",
    Step.CHECK_TAPS: "check_taps",
    Step.TC_INGRESS: "tc_ingress",
    Step.NETFILTER_INGRESS: "nf_ingress",
    Step.IP_RCV: "ip_rcv",
    Step.NETFILTER_PREROUTING: "nf_prerouting",
    Step.IP_RCV_FINISH: "ip_rcv_finish",
    Step.IP_ROUTING: "ip_routing",
    Step.IP_LOCAL_DELIVER: "ip_local_deliver",
    Step.XFRM_POLICY: "xfrm_policy",
    Step.L4_RECEIVE: "udp_rcv",
    Step.XFRM_POLICY_L4: "xfrm_policy_l4",
    Step.RECEIVE_QUEUE: "socket_queue",
    Step.DATA_READY: "data_ready",
}


class Why(StrEnum):
    """Every cause of a step not taken. Each has a test that turns it and sees the step taken."""

    NO_POLL = "no poll: a system call handed the packet in"
    OTHER_CPU = "no poll: the thread of a cpumap took the packet from its processor's queue"
    REDIRECTED = "redirected into {device} behind this point (bpf_redirect_peer)"
    NO_XDP = "no XDP program in the driver of {device}"
    HANDED_OVER = "{device} hands over the buffer it was given: none is built"
    NO_NAPI = (
        "no GRO: {device} has no NAPI of its own (gro off and no XDP), "
        "the packet came through the processor's backlog"
    )
    NO_GENERIC_XDP = "no generic XDP program on {device}"
    NOT_AGAIN = "generic XDP does not look at packets that a program redirected"
    NO_TAP = "no packet socket listens on {device}"
    NO_CLASSIFIER = "no classifier program on ingress of {device}"
    NO_CHAIN = "no netdev chain hooks ingress of {device}"
    NO_PREROUTING = "no chain hooks prerouting in {place}"
    ROUTE_HINT = "no look-up: the packet before it in the list has the same route (route hint)"
    EARLY_SOCKET = "no look-up: the packet's socket was found early and carries its route"
    CHECKED_LATER = "{protocol} makes its IPsec check later, when it knows the ports"
    NO_POLICY = "no IPsec policy in {place}"
    NO_POLICY_L4 = "no IPsec policy in {place}: the check returns at once"
    CUT_OUT = "packet {packet} took it: this one was cut out of it behind, in the transport"
    REINJECTED = "decrypted in place: what was inside comes back behind this step"
    CHECKED_INSIDE = "ESP itself is not checked: what comes out of it is"
    NO_DATA = "nothing to queue: the connection that it completes waits to be accepted"

    def told(self, reason: str) -> bool:
        """Whether a line's reason is this one, of whatever device."""
        pattern = re.sub(r"\\{\w+\\}", ".+", re.escape(self.value))
        return re.fullmatch(pattern, reason) is not None


class Untold(StrEnum):
    """What is said where neither a record nor the configuration explains a step's absence."""

    NO_STATE = "no evidence: the state of {device} was not seen"
    NO_STACK = "no call stack names the poll"
    XDP_SILENT = "{device} has an XDP program, but nothing told of it"
    GRO_SILENT = "no GRO: {poll} passed the packet on without it"
    NO_EVIDENCE = "no evidence: nothing reported it and nothing explains its absence"


_CPUMAP = "cpu_map_kthread_run"
_PROTOCOLS = {ICMP: "ICMP", TCP: "TCP", UDP: "UDP"}


def fill(walk: Walk, ended_by: str, tunnel: bool = False) -> list[Hop]:
    """Return a receive walk's lines with one more for each step without any, in step order.

    Args:
        walk: of the receiving side.
        ended_by: how the walk ended, in words; empty if the packet is still there.
        tunnel: it ended in a tunnel's socket: the packet comes in again, unpacked.
    """
    imply(walk, tunnel)
    last = max((hop.step for hop in walk.hops if hop.step), default=Step.NAPI_POLL)
    if walk.bridged or walk.last(ARP) is not None:
        last = max(last, Step.NETFILTER_INGRESS)  # both take frames behind this step
    lines = list(walk.hops)
    if walk.cut_from is not None:
        # its call stacks are those of the large packet, which came this way before it was cut
        lines = [hop for hop in lines if not (hop.step and hop.step < Step.L4_RECEIVE)]
    for step in Step:
        if any(hop.step is step for hop in lines):
            continue
        lines.append(absent(walk, step, reason(walk, step, last, ended_by)))
    return in_order(lines)


_BEHIND = {
    "cgroup_ingress": Step.XFRM_POLICY_L4.number + 0.5,
    ARP: Step.NETFILTER_INGRESS.number + 0.5,
}
"""Hooks without a number whose neighbours are seen later than they are met."""


def in_order(lines: list[Hop]) -> list[Hop]:
    """Lines with a step by its number; the others stay behind the line they followed.

    No line is later than the next one: a function that a call stack names was entered before all
    that it called, however late the stack was taken.
    """
    keyed: list[tuple[float, Hop]] = []
    step: float = 0
    for hop in lines:
        step = hop.step.number if hop.step else _BEHIND.get(hop.hook, step)
        keyed.append((step, hop))
    ordered = [hop for _, hop in sorted(keyed, key=lambda pair: pair[0])]
    latest = max((hop.ns for hop in ordered), default=0)
    for index in range(len(ordered) - 1, -1, -1):
        if ordered[index].taken:
            latest = min(latest, ordered[index].ns)
            ordered[index] = replace(ordered[index], ns=latest)
    return ordered


def absent(walk: Walk, step: Step, reason: str) -> Hop:
    """Return the line about a step that was not taken, for the reason given."""
    return Hop(
        step=step,
        hook=HOOK_OF_STEP[step],
        evidence=Evidence.NOT_TAKEN,
        side=Side.RECEIVE,
        node=walk.place.node,
        namespace=walk.place.namespace,
        device=walk.place.device,
        ifindex=walk.ifindex,
        reason=reason,
    )


_NO_PROBE = "without netfilter programs or function probes only what follows shows it"
IMPLIED = {
    Step.XDP_DRIVER: "a frame that XDP sent on has no buffer yet that a probe could name",
    Step.GENERIC_XDP: "seen where it exchanges the buffer's storage, which it need not do",
    Step.CHECK_TAPS: "a tap with a ring in shared memory wakes nobody for a single packet",
    Step.TC_INGRESS: "a kernel before 6.6 has no place for a probe beside the classifier",
    Step.NETFILTER_INGRESS: "no BPF program fits into the netdev family, no tracepoint is there",
    Step.IP_RCV: _NO_PROBE,
    Step.NETFILTER_PREROUTING: _NO_PROBE,
    Step.IP_RCV_FINISH: _NO_PROBE,
    Step.IP_LOCAL_DELIVER: _NO_PROBE,
    Step.L4_RECEIVE: "a tunnel's socket is found without asking where the kernel knows it early",
    Step.XFRM_POLICY_L4: "a policy notes its use in whole seconds: a second use leaves no mark",
}
"""The only steps that may be implied, each with why there is not always something better."""


def imply(walk: Walk, tunnel: bool) -> None:
    """Add the steps that nothing reports but that later ones cannot happen without."""
    # in this order: what is implied here may imply the steps before it below
    if (tunnel or walk.taken(Step.L4_RECEIVE)) and not walk.taken(Step.IP_LOCAL_DELIVER):
        _implied(walk, Step.IP_LOCAL_DELIVER, "there is no other way to the transport")
    if walk.taken(Step.IP_ROUTING) or walk.taken(Step.IP_LOCAL_DELIVER):
        for step in (Step.IP_RCV, Step.IP_RCV_FINISH):
            if not walk.taken(step) and not walk.reinjected:
                _implied(walk, step, "nothing is routed or delivered without it")
    told = walk.taken(Step.IP_RCV) or walk.reinjected
    if walk.taken(Step.NETFILTER_PREROUTING) and not told:
        _implied(walk, Step.IP_RCV, "it calls the hook whose rules were asked")
    for flag, step, reason in _BY_CONFIGURATION:
        # netif_receive_generic_xdp() lets buffers with skb->redirected pass
        skipped = step is Step.GENERIC_XDP and walk.config & Config.REDIRECTED
        beyond = _went_beyond(walk, step) or _left_behind(walk, step)
        if walk.config & flag and beyond and not skipped:
            _implied(walk, step, reason)
    frame = walk.config & Config.XDP_DRIVER and walk.taken(Step.CLEAN_RX)
    if frame and walk.taken(Step.GRO_RECEIVE) and not walk.taken(Step.XDP_DRIVER):
        _implied(walk, Step.XDP_DRIVER, "the frame came through the poll that asks the program")
    if tunnel and not walk.taken(Step.L4_RECEIVE):
        _implied(walk, Step.L4_RECEIVE, "the tunnel's socket unpacked it, as it comes in again")
    checked = walk.config & Config.XFRM_POLICY_IN and walk.taken(Step.RECEIVE_QUEUE)
    if checked and not walk.taken(Step.XFRM_POLICY_L4):
        _implied(walk, Step.XFRM_POLICY_L4, "the namespace has an IPsec policy and let it pass")


_BY_CONFIGURATION = (
    (Config.XDP_GENERIC, Step.GENERIC_XDP, "a generic XDP program is attached and let it pass"),
    (Config.TAPS, Step.CHECK_TAPS, "a packet socket listens on the device: it got its copy"),
    (Config.TC_INGRESS, Step.TC_INGRESS, "a classifier is attached to ingress and let it pass"),
    (Config.NF_INGRESS, Step.NETFILTER_INGRESS, "a chain hooks ingress and let it pass"),
    (Config.NF_PREROUTING, Step.NETFILTER_PREROUTING, "a chain hooks it and let the packet pass"),
)
"""What a device has on the way of every packet that goes beyond the step."""


def _went_beyond(walk: Walk, step: Step) -> bool:
    return not walk.taken(step) and any(hop.step and hop.step > step for hop in walk.hops)


def _left_behind(walk: Walk, step: Step) -> bool:
    """Whether a bridge or ARP took the packet, which both do behind step 9."""
    left = walk.bridged or walk.last(ARP) is not None
    return left and step <= Step.NETFILTER_INGRESS and not walk.taken(step)


def _implied(walk: Walk, step: Step, reason: str) -> None:
    later = (hop for hop in walk.hops if hop.step and hop.step > step)
    assert step in IMPLIED
    after = next(later, walk.hops[-1])
    walk.hops.append(
        replace(
            absent(walk, step, reason),
            evidence=Evidence.IMPLIED,
            ns=after.ns,
            cpu=after.cpu,
            skb=after.skb,
            packet=after.packet,
            mark=after.mark,
            object=after.object,
        )
    )
    at = walk.last("receive_skb")
    if step is Step.GENERIC_XDP and at is not None:
        # its program may have changed what step 5 saw
        seen = walk.hops[at]
        walk.hops[-1] = replace(
            walk.hops[-1], program=walk.xdp, before=seen.before, length=seen.length,
            link_layer=seen.link_layer, verdict="pass",
        )  # fmt: skip


def reason(walk: Walk, step: Step, last: Step, ended_by: str) -> str:
    """Return why a walk did not take a step; one of Untold where nothing tells.

    Args:
        walk: of the receiving side.
        step: that it did not take.
        last: the last step it took.
        ended_by: how it ended, in words.
    """
    # an end behind the last check does not explain it: without a policy it returned at once
    if step > last and ended_by and not (step is Step.XFRM_POLICY_L4 and _unchecked(walk)):
        return ended_by
    if walk.cut_from is not None and step < Step.L4_RECEIVE:
        return Why.CUT_OUT.format(packet=walk.cut_from)
    why = _early_reason(walk, step) or _late_reason(walk, step)
    if why is None:
        if ended_by:
            return ended_by
        why = Untold.NO_EVIDENCE
    return why.format(
        device=walk.place.device or "the device",
        place=walk.place.namespace or "the namespace",
        protocol=_PROTOCOLS.get(walk.protocol, f"protocol {walk.protocol}"),
        poll=walk.poll,
    )


def _late_reason(walk: Walk, step: Step) -> Why | None:
    """Reasons for steps 11 to 18."""
    policy = Config.XFRM_POLICY_IN in walk.config
    if walk.reinjected and step in (Step.IP_RCV, Step.IP_RCV_FINISH, Step.IP_ROUTING):
        return Why.REINJECTED
    match step:
        case Step.NETFILTER_PREROUTING if _unhooked(walk):
            return Why.NO_PREROUTING
        # ip_route_use_hint(): only ip_list_rcv_finish() has a hint, and GRO hands up lists
        case Step.IP_ROUTING if walk.gro and not walk.early:
            return Why.ROUTE_HINT
        case Step.IP_ROUTING:
            return Why.EARLY_SOCKET
        case Step.XFRM_POLICY if walk.protocol in CHECK_LATER:
            return Why.CHECKED_LATER
        case Step.XFRM_POLICY if walk.protocol == ESP:
            return Why.CHECKED_INSIDE
        case Step.XFRM_POLICY if not policy:
            return Why.NO_POLICY
        case Step.XFRM_POLICY_L4 if not policy:
            return Why.NO_POLICY_L4
        case Step.RECEIVE_QUEUE if walk.taken(Step.DATA_READY):
            return Why.NO_DATA
    return None


def _unchecked(walk: Walk) -> bool:
    """Whether the transport, which had the packet, had no IPsec policy to look for."""
    had_it = walk.taken(Step.L4_RECEIVE) and walk.drop is None
    return had_it and Config.KNOWN in walk.config and Config.XFRM_POLICY_IN not in walk.config


def _unhooked(walk: Walk) -> bool:
    return Config.KNOWN in walk.config and Config.NF_PREROUTING not in walk.config


def _entered_late(walk: Walk) -> bool:
    """Whether the packet came into the stack on this device without having been received by it."""
    received = ("napi_poll", "netif_rx", "gro_receive", "xdp", "clean_rx")
    return walk.last(*received) is None and any(hop.taken for hop in walk.hops)


def _early_reason(walk: Walk, step: Step) -> Why | Untold | None:
    """Reasons for steps 1 to 9, from the device's own state when the packet came."""
    if step > Step.NETFILTER_INGRESS:
        return None
    if walk.reinjected:
        return Why.REINJECTED
    if not walk.config & Config.KNOWN:
        return Untold.NO_STATE
    if step <= Step.RECEIVE_SKB and not walk.taken(Step.RECEIVE_SKB) and _entered_late(walk):
        return Why.REDIRECTED
    match step:
        case Step.NAPI_POLL if any(_CPUMAP in hop.stack for hop in walk.hops):
            return Why.OTHER_CPU
        case Step.NAPI_POLL:
            return Why.NO_POLL if any(hop.stack for hop in walk.hops) else Untold.NO_STACK
        case Step.XDP_DRIVER if walk.config & Config.XDP_DRIVER:
            return Untold.XDP_SILENT
        case Step.GRO_RECEIVE if walk.poll not in ("", "process_backlog"):
            return Untold.GRO_SILENT
        case Step.GENERIC_XDP if walk.config & Config.XDP_GENERIC:
            return Why.NOT_AGAIN
    return _NOT_CONFIGURED.get(step)


_NOT_CONFIGURED = {
    Step.XDP_DRIVER: Why.NO_XDP,
    Step.CLEAN_RX: Why.HANDED_OVER,
    Step.GRO_RECEIVE: Why.NO_NAPI,
    Step.GENERIC_XDP: Why.NO_GENERIC_XDP,
    Step.CHECK_TAPS: Why.NO_TAP,
    Step.TC_INGRESS: Why.NO_CLASSIFIER,
    Step.NETFILTER_INGRESS: Why.NO_CHAIN,
}
"""What has to be there for the step to be taken."""
