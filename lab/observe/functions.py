"""The second witness's ladder: every line is a kernel function that was entered with the packet.

Records of ``bpf/probes/functions.bpf.c`` in, walks out. Nothing here comes from tracepoints or from
programs in hooks, so that the two ladders can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.observe.absent import absent, in_order
from lab.observe.absent import reason as configured
from lab.observe.assemble import Reading
from lab.observe.drops import Drop, classify
from lab.observe.identify import Journey
from lab.observe.ipsec import ESP_INPUT, LINES
from lab.observe.names import Names
from lab.observe.records import Config, Kind, Record
from lab.observe.walk import Builder, Walk
from lab.trace import NO_EVIDENCE, Evidence, Hop, SendHook, Side, Step

OUTPUT, LOCAL_OUT = "ip_output", "ip_local_out"


@dataclass(frozen=True, slots=True)
class Function:
    """A kernel function that is probed, and what its being entered means.

    Attributes:
        program: of ``bpf/probes/functions.bpf.c``.
        name: of the kernel function.
        hook: how a line about it is called.
        step: of the receiving side that it proves; None for the others.
        side: what the packet is doing there.
        over: program that tells of its return, empty if none.
        version: program for a kprobe where the compiler left only a version of the function that
            takes other arguments; empty if none.
    """

    program: str
    name: str
    hook: str
    step: Step | None = None
    side: Side = Side.RECEIVE
    over: str = ""
    version: str = ""


def _sends(program: str, name: str, hook: str) -> Function:
    return Function(program, name, hook, None, Side.SEND)


ESP_FUNCTIONS = (
    _sends("f_xfrm_output", "xfrm_output", SendHook.XFRM_OUT.value),
    _sends("f_esp_output", "esp_output", SendHook.XFRM_OUT.value),
    Function("f_esp_rcv", "xfrm4_esp_rcv", ESP_INPUT, Step.L4_RECEIVE),
    Function("f_esp_input", "esp_input", ESP_INPUT),
)
"""Of kernels that can encrypt; two of them say what another one's line is completed with."""

FUNCTIONS = (
    Function("f_napi_poll", "__napi_poll", "napi_poll", Step.NAPI_POLL, over="f_napi_poll_over"),
    Function("f_xdp_driver", "veth_xdp_rcv_skb", "xdp", Step.XDP_DRIVER, over="f_xdp_driver_over"),
    Function("f_gro_receive", "dev_gro_receive", "gro_receive", Step.GRO_RECEIVE),
    # __netif_receive_skb_core itself is often a .constprop clone: nothing to attach to
    Function("f_receive_one", "__netif_receive_skb_one_core", "receive_skb", Step.RECEIVE_SKB),
    Function("f_receive_list", "netif_receive_skb_list_internal", "receive_skb", Step.RECEIVE_SKB),
    # runs only where there is a program, unlike do_xdp_generic
    Function("f_xdp_generic", "bpf_prog_run_generic_xdp", "generic_xdp", Step.GENERIC_XDP),
    Function("f_tap", "packet_rcv", "check_taps", Step.CHECK_TAPS),
    Function("f_tap_ring", "tpacket_rcv", "check_taps", Step.CHECK_TAPS),
    # sch_handle_ingress is inlined
    Function("f_classify", "tcf_classify", "tc_ingress", Step.TC_INGRESS),
    Function("f_netfilter", "nf_hook_slow", "nf_prerouting", over="f_netfilter_over"),
    # ip_rcv is not called for the packets of a list (NAPI, GRO); ip_rcv_core checks both
    Function("f_ip_rcv", "ip_rcv_core", "ip_rcv", Step.IP_RCV),
    Function(
        "f_ip_rcv_finish",
        "ip_rcv_finish_core",
        "ip_rcv_finish",
        Step.IP_RCV_FINISH,
        version="k_ip_rcv_finish",
    ),  # fmt: skip
    Function("f_ip_routing", "ip_route_input_noref", "ip_routing", Step.IP_ROUTING),
    Function("f_ip_forward", "ip_forward", "ip_forward"),
    Function("f_ip_local_deliver", "ip_local_deliver", "ip_local_deliver", Step.IP_LOCAL_DELIVER),
    Function("f_xfrm_policy", "__xfrm_policy_check", "xfrm_policy", Step.XFRM_POLICY),
    Function("f_udp_rcv", "udp_rcv", "udp_rcv", Step.L4_RECEIVE),
    Function("f_tcp_rcv", "tcp_v4_rcv", "tcp_v4_rcv", Step.L4_RECEIVE),
    Function("f_icmp_rcv", "icmp_rcv", "icmp_rcv", Step.L4_RECEIVE),
    Function("f_udp_queue", "__udp_enqueue_schedule_skb", "socket_queue", Step.RECEIVE_QUEUE),
    Function("f_tcp_queue", "tcp_queue_rcv", "socket_queue", Step.RECEIVE_QUEUE),
    Function("f_sock_queue", "__sock_queue_rcv_skb", "socket_queue", Step.RECEIVE_QUEUE),
    Function("f_data_ready", "sock_def_readable", "data_ready", Step.DATA_READY),
    Function("f_free", "kfree_skb_reason", "kfree_skb", side=Side.OTHER),
    _sends("f_local_out", "__ip_local_out", LOCAL_OUT),
    _sends("f_ip_output", "ip_output", OUTPUT),
    _sends("f_dev_queue", "__dev_queue_xmit", SendHook.DEV_QUEUE.value),
    _sends("f_dev_xmit", "dev_hard_start_xmit", SendHook.DEV_XMIT.value),
    *ESP_FUNCTIONS,
)
_BY_NAME = {function.name: function for function in FUNCTIONS}
# NFPROTO_IPV4 and NFPROTO_NETDEV; keys below: family and the family's own hook number
_IPV4, _NETDEV = 2, 5
_CHAINS: dict[tuple[int, int], tuple[str, Step | None, Side]] = {
    (_NETDEV, 0): ("nf_ingress", Step.NETFILTER_INGRESS, Side.RECEIVE),
    (_NETDEV, 1): ("nf_egress", None, Side.SEND),
    (_IPV4, 0): ("nf_prerouting", Step.NETFILTER_PREROUTING, Side.RECEIVE),
    (_IPV4, 1): ("nf_input", Step.IP_LOCAL_DELIVER, Side.RECEIVE),
    (_IPV4, 2): (SendHook.NF_FORWARD.value, None, Side.RECEIVE),
    (_IPV4, 3): (SendHook.NF_OUTPUT.value, None, Side.SEND),
    (_IPV4, 4): (SendHook.NF_POSTROUTING.value, None, Side.SEND),
}
# TC_ACT_* (linux/pkt_cls.h) and enum xdp_action (linux/bpf.h)
_TC = {-1: "pass", 0: "pass", 1: "pass", 2: "drop", 3: "pass", 4: "stolen", 5: "stolen",
       7: "redirect", 8: "stolen"}  # fmt: skip
_XDP = {0: "aborted", 1: "drop", 2: "pass", 3: "tx", 4: "redirect"}
_ABOVE_DEVICE = frozenset({LOCAL_OUT, OUTPUT, "socket_queue", "data_ready"})
"""Where the buffer's device is none, or not the one that matters."""
_FINISH = ("ip_rcv_finish_core", "ip_rcv_finish", "ip_list_rcv_finish", "ip_sublist_rcv_finish")
_PROBED_BY = {
    Step.NETFILTER_INGRESS: "nf_hook_slow",
    Step.NETFILTER_PREROUTING: "nf_hook_slow",
    Step.CLEAN_RX: "veth_xdp_rcv_skb",
    Step.XFRM_POLICY_L4: "__xfrm_policy_check",
}
_CONFIGURED = {
    Step.XDP_DRIVER: Config.XDP_DRIVER,
    Step.GENERIC_XDP: Config.XDP_GENERIC,
    Step.CHECK_TAPS: Config.TAPS,
    Step.TC_INGRESS: Config.TC_INGRESS,
    Step.NETFILTER_INGRESS: Config.NF_INGRESS,
    Step.NETFILTER_PREROUTING: Config.NF_PREROUTING,
    Step.XFRM_POLICY_L4: Config.XFRM_POLICY_IN,
}


def probed(step: Step) -> tuple[str, ...]:
    """Return the kernel functions whose entry proves a step."""
    named = tuple(function.name for function in FUNCTIONS if function.step is step)
    return named or (_PROBED_BY[step],)


def told_without(refused: Sequence[str]) -> tuple[str, ...]:
    """Return what the loss of functions means, a sentence each.

    Args:
        refused: ``NAME: reason`` of each function that cannot be probed.
    """
    names = [line.partition(":")[0] for line in refused]
    return tuple(
        f"{line}; {_loses(_BY_NAME.get(name), names)}"
        for line, name in zip(refused, names, strict=True)
    )


def _loses(function: Function | None, refused: Sequence[str]) -> str:
    if function is None or function.step is None:
        return "no step loses its grade"
    number = function.step.number
    others = [one.name for one in FUNCTIONS if one.step is function.step]
    left = [name for name in others if name not in refused]
    if left:
        return f"step {number} keeps the grade probe where {' or '.join(left)} is called"
    return f"step {number} loses the grade probe"


class FunctionLadder(Builder):
    """Turns one journey's records of entered functions into walks.

    Args:
        journey: one packet's records.
        names: for the numbers in them.
        polls: not needed: a poll is told with the packet that came in it.
    """

    def __init__(self, journey: Journey, names: Names, polls: Sequence[Record] = ()) -> None:
        super().__init__(journey, names)
        for record in journey.records:
            function = _BY_NAME.get(names.symbol(record.location))
            if function is None:
                continue
            if record.kind in (Kind.XFRM_ENCRYPT, Kind.XFRM_DECRYPT):
                LINES[record.kind](self, record)
            elif record.kind is Kind.FUNCTION_RETURN:
                self._returned(record, function)
            elif function.name == "kfree_skb_reason":
                self._freed(record)
            else:
                self._entered(record, function)

    def _entered(self, record: Record, function: Function) -> None:
        hook, step, side = function.hook, function.step, function.side
        if function.name == "nf_hook_slow":
            hook, step, side = _CHAINS[record.arg >> 8, record.arg & 0xFF]
        # skb->tc_at_ingress: the same function serves both sides of a device
        if function.name == "tcf_classify" and not record.arg:
            hook, step, side = SendHook.TC_EGRESS.value, None, Side.SEND
        walk = self._place(record, hook, step, side)
        if record.config & Config.KNOWN:
            walk.config = self.configured(record, walk)
        if step is Step.XDP_DRIVER and not walk.config & Config.XDP_DRIVER:
            return  # NAPI without a program passes here too
        # one function for both checks: the second time the transport asks
        if step is Step.XFRM_POLICY and walk.taken(Step.L4_RECEIVE):
            hook, step = "xfrm_policy_l4", Step.XFRM_POLICY_L4
        if step is Step.NAPI_POLL:
            walk.poll = self.names.symbol(record.arg)
        if step is Step.IP_ROUTING:
            self._finish(record, walk)
        # ip_local_deliver calls the hook: its own entry has proven the step already
        if hook == "nf_input" and (index := walk.last("ip_local_deliver")) is not None:
            step = None if walk.hops[index].taken else step
        hop = self.add(
            record, walk, hook, function.program, step=step, evidence=Evidence.PROBE,
            reason=_said(record, function, self.names),
        )  # fmt: skip
        if function.name == "tcf_classify":
            self._judged(walk, hop, _TC.get(record.verdict, str(record.verdict)))
        elif step is Step.GENERIC_XDP:
            walk.hops[-1] = replace(hop, verdict=_XDP.get(record.verdict, "aborted"))
        elif step is Step.DATA_READY:
            walk.hops[-1] = replace(hop, verdict="delivered")
        elif step is Step.RECEIVE_QUEUE:
            walk.hops[-1] = replace(hop, verdict="queued")

    def _place(self, record: Record, hook: str, step: Step | None, side: Side) -> Walk:
        """The walk of a record; a step behind the newest one begins the same device anew."""
        current = self.walks[-1] if self.walks else None
        if hook in _ABOVE_DEVICE:
            record = replace(record, ifindex=0)
        if current is None or current.side is not side or current.netns != record.netns:
            return self.walk(record, side)
        if side is Side.RECEIVE and step is not None and step <= Step.RECEIVE_SKB:
            again = any(hop.step and hop.step >= step for hop in current.hops)
        else:
            again = hook == LOCAL_OUT and current.last(SendHook.DEV_XMIT.value) is not None
        if again:
            place = self.names.place(record.netns, record.ifindex)
            self.walks.append(Walk(place, record.netns, record.ifindex, side, first_ns=record.ns))
            self.walks[-1].protocol = current.protocol
        return self.walk(record, side)

    def _finish(self, record: Record, walk: Walk) -> None:
        """Routing is asked from step 12, whose function may have been inlined into its callers."""
        stack = tuple(map(self.names.symbol, record.stack))
        seen = next((name for name in _FINISH if name in stack), "")
        if seen and not walk.taken(Step.IP_RCV_FINISH):  # else it was seen itself
            self.add(
                record, walk, "ip_rcv_finish", "f_ip_routing", step=Step.IP_RCV_FINISH,
                evidence=Evidence.STACK, reason=f"{seen} called ip_route_input_noref",
            )  # fmt: skip

    def _judged(self, walk: Walk, hop: Hop, verdict: str) -> None:
        side = "ingress" if walk.side is Side.RECEIVE else "egress"
        attached = self.names.hooks.get((walk.netns, walk.ifindex, side))
        program = attached.name if attached else ""
        walk.hops[-1] = replace(hop, verdict=verdict, program=program)
        if verdict == "drop":
            walk.drop = Drop(hop.step, hop.hook)

    def _returned(self, record: Record, function: Function) -> None:
        walk = self.walks[-1] if self.walks else None
        if walk is None:
            return
        if function.name == "veth_xdp_rcv_skb":
            self._driver_done(record, walk)
            return
        index = next((i for i in range(len(walk.hops) - 1, -1, -1)
                      if walk.hops[i].hook.startswith("nf_")), None)  # fmt: skip
        if index is None or walk.hops[index].verdict:
            return
        # nf_hook_slow returns 1 to go on, 0 if the buffer was stolen or queued, else an error
        verdict = "accept" if record.verdict == 1 else "drop" if record.verdict < 0 else "stolen"
        walk.hops[index] = replace(walk.hops[index], verdict=verdict)
        if verdict == "drop":
            walk.drop = Drop(walk.hops[index].step, walk.hops[index].hook)

    def _driver_done(self, record: Record, walk: Walk) -> None:
        index = walk.last("xdp")
        if index is None:
            return
        # what it returns is for the stack: nothing, where the program kept or dropped the frame
        if record.arg:
            walk.hops[index] = replace(walk.hops[index], verdict="pass")
        # a native program needs the driver's own memory: the sender's buffer was copied
        if record.arg and record.arg != record.skb:
            place = replace(record, netns=walk.netns, ifindex=walk.ifindex)
            self.add(
                place, walk, "clean_rx", "f_xdp_driver_over", step=Step.CLEAN_RX,
                evidence=Evidence.PROBE,
                reason="veth_xdp_rcv_skb gave back another buffer: the driver's own",
            )  # fmt: skip

    def _freed(self, record: Record) -> None:
        stack = tuple(map(self.names.symbol, record.stack))
        # the trampoline's frames come first; who frees stands behind kfree_skb_reason's own frame
        own = max((i for i, name in enumerate(stack) if name == "kfree_skb_reason"), default=-1)
        location = stack[own + 1] if 0 <= own < len(stack) - 1 else ""
        reason = self.names.drop_reasons.get(record.reason, f"reason {record.reason}")
        walk = self.walks[-1] if self.walks else None
        if walk is None:
            return
        entered = next((h.hook for h in reversed(walk.hops) if h.hook.startswith("nf_")), "")
        drop = classify(location, reason, side=walk.side, entered=entered)
        if drop is None:
            return
        walk.drop = drop
        index = walk.last(drop.hook)
        if index is None:
            self.add(record, walk, drop.hook, "f_free", step=drop.step, evidence=Evidence.PROBE)
            index = len(walk.hops) - 1
        walk.hops[index] = replace(
            walk.hops[index], verdict="drop", drop_reason=reason,
            reason=f"freed by {location or 'an unknown caller'}",
        )  # fmt: skip


def _said(record: Record, function: Function, names: Names) -> str:
    if function.name == "__napi_poll":
        poll = names.symbol(record.arg) or "its poll function"
        return f"__napi_poll runs {poll}, entered {record.verdict} us before the packet came up"
    if function.step is Step.RECEIVE_QUEUE:
        return f"{function.name} was entered for port {record.arg}"
    if function.step is Step.DATA_READY:
        return f"sock_def_readable wakes the reader of port {record.arg}"
    return f"{function.name} was entered"


def complete(walk: Walk, ended_by: str, tunnel: bool = False) -> list[Hop]:
    """Return a receive walk's lines with one more for each step whose function was not entered.

    Args:
        walk: of the receiving side.
        ended_by: how the walk ended, in words; empty if the packet is still there.
        tunnel: it ended in a tunnel's socket; nothing is concluded from that here.
    """
    went_on = walk.taken(Step.IP_ROUTING) or walk.taken(Step.IP_LOCAL_DELIVER)
    if walk.taken(Step.IP_RCV) and went_on and not walk.taken(Step.IP_RCV_FINISH):
        later = next(h for h in walk.hops if h.step in (Step.IP_ROUTING, Step.IP_LOCAL_DELIVER))
        told = "it has no function of its own here; ip_rcv_core was before it, delivery after it"
        walk.hops.append(
            replace(later, step=Step.IP_RCV_FINISH, hook="ip_rcv_finish", reason=told,
                    evidence=Evidence.IMPLIED, verdict="")
        )  # fmt: skip
    last = max((hop.step for hop in walk.hops if hop.step), default=Step.NAPI_POLL)
    # rx_handler (a bridge's) is called behind tc and the netdev chain: those count as passed
    if walk.config & Config.RX_HANDLER and last < Step.NETFILTER_INGRESS and walk.drop is None:
        last = Step.NETFILTER_INGRESS
    lines = list(walk.hops)
    for step in Step:
        if not any(hop.step is step for hop in walk.hops):
            lines.append(absent(walk, step, _silent(walk, step, last, ended_by)))
    return in_order(lines)


def _silent(walk: Walk, step: Step, last: Step, ended_by: str) -> str:
    """Why a step's functions were not entered."""
    silence = f"{' and '.join(probed(step))} not entered"
    # the device has what would have run, and the packet went on: nothing excuses the silence
    if step < last and walk.config & _CONFIGURED.get(step, Config(0)):
        return silence
    why = configured(walk, step, last, ended_by)
    return silence if why.startswith(NO_EVIDENCE) else why


FUNCTION_READING = Reading(FunctionLadder, complete)
"""Functions' entries and returns."""
