"""From the records of one packet to lines: what was seen, where, and which step it proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from lab.observe.arrival import ARP, ARRIVALS
from lab.observe.drops import KEPT, REDIRECTED, chain_of, classify
from lab.observe.headers import icmp_words
from lab.observe.identify import Journey
from lab.observe.ipsec import LINES, told
from lab.observe.names import Names, hook_of_program
from lab.observe.records import Config, Kind, Record
from lab.observe.standin import StandIn
from lab.observe.walk import Walk, step_of
from lab.observe.xdp import XDP, XDP_COPY
from lab.trace import Evidence, Hop, LookUp, SendHook, Side, Step
from lab.trace.own import OwnEvent

PREROUTING, LOCAL_IN, FORWARD, LOCAL_OUT, POSTROUTING = range(5)
_NF_HOOKS = {
    PREROUTING: ("nf_prerouting", Step.NETFILTER_PREROUTING, Side.RECEIVE),
    LOCAL_IN: ("nf_input", Step.IP_LOCAL_DELIVER, Side.RECEIVE),
    FORWARD: (SendHook.NF_FORWARD.value, None, Side.RECEIVE),
    LOCAL_OUT: (SendHook.NF_OUTPUT.value, None, Side.SEND),
    POSTROUTING: (SendHook.NF_POSTROUTING.value, None, Side.SEND),
}
# enum gro_result
_GRO = {0: "merged", 1: "merged", 2: "held", 3: "normal", 4: "consumed"}
# with NAPI packets come in lists, and ip_rcv is not called at all
_IP_RCV = ("ip_rcv", "ip_list_rcv", "ip_sublist_rcv")
# on many kernels the first is inlined or a clone: whoever contains it stands for it
_FINISH = ("ip_rcv_finish_core", "ip_rcv_finish", "ip_list_rcv_finish", "ip_sublist_rcv_finish")
_LEAVING = (SendHook.DEV_QUEUE.value, SendHook.DEV_XMIT.value)
_RECEIVE = frozenset({Kind.NETIF_RX, Kind.GRO_RECEIVE, Kind.RECEIVE_SKB, Kind.TC_INGRESS})
_SEND = frozenset({Kind.DEV_QUEUE, Kind.DEV_XMIT, Kind.TC_EGRESS, Kind.QDISC_ENQUEUE})


class Ladder(StandIn):
    """Turns one journey's records into walks.

    Args:
        journey: one packet's records.
        names: for the numbers in them.
        polls: every poll reported, whichever packet was current at its end.
    """

    def __init__(self, journey: Journey, names: Names, polls: Sequence[Record] = ()) -> None:
        super().__init__(journey, names)
        own = sorted(journey.own, key=lambda pair: pair[0])
        if (first := journey.first_seen) is not None:
            self._cut_out(first)
        for record in journey.records:
            while own and own[0][0] < record.ns:
                self._own(own.pop(0)[1])
            self._take(record)
        for _, event in own:
            self._own(event)
        self._sent_back(self.walks)
        for walk in self.walks:
            self._poll_over(walk, polls)

    # -- what -----------------------------------------------------------------------------------

    def _take(self, record: Record) -> None:
        kind = record.kind
        if kind in _RECEIVE:
            self._receive(record, self.walk(record, Side.RECEIVE))
        elif kind in _SEND:
            self._send(record, self.walk(record, Side.SEND))
        elif kind in (Kind.NETFILTER_FIRST, Kind.NETFILTER_LAST):
            self._netfilter(record)
        elif kind is Kind.FUNCTION:
            self._entered(record)
        elif kind is Kind.ROUTE:
            self._route(record)
        elif kind in ARRIVALS:
            getattr(self, ARRIVALS[kind])(record)
        elif kind is Kind.GRO_RESULT:
            self._gro_result(record)
        elif kind is Kind.FREE:
            self._free(record)
        elif kind is Kind.CONSUME:
            self._consume(record)
        elif kind in XDP:
            self._xdp(record)
        elif kind in LINES:
            LINES[kind](self, record)
        elif kind in (Kind.ICMP_SEND, Kind.TCP_RESET, Kind.QUEUE_FULL):
            self._answer(record)

    def _own(self, event: OwnEvent) -> None:
        """Add what a probe of the user's own saw to the walk it was seen in."""
        if not self.walks:
            return
        here = (walk for walk in reversed(self.walks) if (walk.netns, walk.ifindex) in event.places)
        walk = next(here, self.walks[-1])
        self.add_own(event, walk, step_of(event, walk))

    def _receive(self, record: Record, walk: Walk) -> None:
        walk = self._again(record, walk)
        if record.config & Config.KNOWN:
            walk.config = self.configured(record, walk)
        stack = self.names.frames(record.stack)
        if stack and not walk.poll:
            self._poll(record, walk, stack)
        if record.kind is Kind.NETIF_RX:
            self.add(record, walk, "netif_rx", "on_netif_rx", reason="queued on the processor")
        elif record.kind is Kind.GRO_RECEIVE:
            self._built(record, walk)
            self.add(record, walk, "gro_receive", "on_gro_receive", step=Step.GRO_RECEIVE)
        elif record.kind is Kind.RECEIVE_SKB:
            self._steered(record, walk)
            walk.head = record.head
            self.add(record, walk, "receive_skb", "on_receive_skb", step=Step.RECEIVE_SKB)
        else:
            self._storage(record, walk)
            self._classifier(record, walk, "ingress", Step.TC_INGRESS, "tc_ingress")

    def _poll_over(self, walk: Walk, polls: Sequence[Record]) -> None:
        """A poll is reported at its end: it covers every packet that came with it."""
        index = walk.last("napi_poll")
        if index is None:
            return
        hop = walk.hops[index]
        for poll in polls:
            if (
                poll.cpu == hop.cpu
                and poll.ns >= hop.ns
                and self.names.symbol(poll.location) == walk.poll
            ):
                late_us = (poll.ns - hop.ns) / 1000
                walk.hops[index] = replace(
                    hop,
                    evidence=Evidence.TRACEPOINT,
                    reason=f"{walk.poll} took {poll.arg} packets; reported {late_us:.1f} us later",
                    object=self.names.object("on_napi_poll"),
                )
                return

    def _gro_result(self, record: Record) -> None:
        for walk in reversed(self.walks):
            if (index := walk.last("gro_receive")) is not None:
                walk.gro = _GRO.get(record.verdict, str(record.verdict))
                walk.hops[index] = replace(
                    walk.hops[index], verdict=walk.gro, reason=self._with_others(walk.gro)
                )
                return

    def _classifier(
        self, record: Record, walk: Walk, side: str, step: Step | None, hook: str
    ) -> None:
        attached = self.names.hooks.get((walk.netns, walk.ifindex, side))
        program = attached.name if attached else ""
        known = next((seen for seen in reversed(walk.hops) if seen.before), None)
        hop = self.add(
            record,
            walk,
            hook_of_program(program) or hook,
            "tc_ingress" if side == "ingress" else "tc_egress",
            step=step,
            evidence=Evidence.PROGRAM,
            reason=f"{program} runs in this hook" if program else "",
        )
        hop = replace(hop, program=program)
        if not record.packet and attached:
            # told by the program itself, which sees the bytes that were seen just before
            hop = replace(hop, mark=record.mark, object=f"prog {attached.id}")
            if known is not None:
                hop = replace(
                    hop,
                    # generic XDP came between: what it made of them is seen later
                    before=None if walk.generic else known.before,
                    length=known.length,
                    cpu=known.cpu,
                    link_layer=known.link_layer,
                    identity=known.identity,
                )
        walk.hops[-1] = hop

    def _send(self, record: Record, walk: Walk) -> None:
        if record.kind is Kind.TC_EGRESS:
            self._classifier(record, walk, "egress", None, SendHook.TC_EGRESS.value)
        elif record.kind is Kind.DEV_QUEUE:
            self.add(record, walk, SendHook.DEV_QUEUE.value, "on_dev_queue")
        elif record.kind is Kind.QDISC_ENQUEUE:
            self.add(record, walk, "qdisc_enqueue", "on_qdisc_enqueue")
        else:
            self.add(record, walk, SendHook.DEV_XMIT.value, "on_dev_xmit")

    def _netfilter(self, record: Record) -> None:
        hook, step, side = _NF_HOOKS[record.arg]
        walk = self.walk(record, side)
        if record.kind is Kind.NETFILTER_LAST:
            index = walk.last(hook)
            if index is not None:
                walk.hops[index] = replace(walk.hops[index], verdict="accept")
            return
        # behind bpf_redirect_peer, which leaves out steps 1 to 5, this is the device's first sight
        if not walk.config & Config.KNOWN:
            walk.config = self.configured(record, walk)
        self._storage(record, walk)
        grade = Evidence.PROBE if self._by_function() else Evidence.PROGRAM
        if record.arg == LOCAL_IN:
            walk.policy_used = record.reason
        if record.arg in (LOCAL_IN, FORWARD):
            self._route_attached(record, walk, grade)
        known = self._by_function() and walk.taken(Step.IP_RCV)
        # what was decrypted in place comes to the hook from ESP's handler
        if record.arg == PREROUTING and not known and not walk.reinjected:
            self.add(
                record, walk, "ip_rcv", "netfilter_first", step=Step.IP_RCV, evidence=grade,
                reason="ip_rcv calls the hook that was entered next",
            )  # fmt: skip
        if record.arg == LOCAL_IN and walk.last("ip_local_deliver") == len(walk.hops) - 1:
            walk.hops.pop()  # it has called the hook: one line tells of both
        self.add(
            record, walk, hook, "netfilter_first", step=step, evidence=grade, reason=self._chain()
        )

    def _route_attached(self, record: Record, walk: Walk, grade: Evidence) -> None:
        """Behind prerouting a packet carries a route: ip_rcv_finish gave it one."""
        # ip_rcv_core orphans the sender's socket: one that is there again was found early
        walk.early = bool(record.verdict)
        behind = walk.taken(Step.NETFILTER_PREROUTING) and not walk.taken(Step.IP_RCV_FINISH)
        if record.location and behind:
            route = self.names.symbol(record.location)
            self.add(
                record, walk, "ip_rcv_finish", "netfilter_first", step=Step.IP_RCV_FINISH,
                evidence=grade,
                reason=f"a route to {route} was attached since prerouting let it pass",
            )  # fmt: skip

    def _route(self, record: Record) -> None:
        stack = self.names.own_frames(record.stack)
        walk = self.walks[-1] if self.walks else None
        incoming = any(name.startswith("ip_route_input") for name in stack)
        if not record.stack and walk is not None:  # a light trace: the ends have to tell
            incoming = walk.side is Side.RECEIVE and walk.destination == record.hash
        if walk and not incoming and self._asked_by_transport(record, walk, stack):
            return
        if not incoming or walk is None or walk.side is not Side.RECEIVE:
            self._route_out(record, stack)
            return
        walk = self._redirected(record, walk)
        if walk.arp:
            self._ask_again(record, walk, ARP, self._route_answer(record))
            return
        for step, hook, functions in (
            (Step.IP_RCV, "ip_rcv", _IP_RCV),
            (Step.IP_RCV_FINISH, "ip_rcv_finish", _FINISH),
        ):
            seen = next((name for name in functions if name in stack), "")
            if seen:
                self.by_stack(record, walk, step, hook, seen)
        index = walk.last("ip_routing")
        answer = (self._route_answer(record),)
        if index is not None:
            self._ask_again(record, walk, "ip_routing", answer[0])
            return
        self.add(
            record, walk, "ip_routing", "on_route", step=Step.IP_ROUTING, lookups=answer,
            reason="fib_table_lookup, called on the way of this packet",
        )  # fmt: skip

    def _redirected(self, record: Record, walk: Walk) -> Walk:
        """A look-up in another namespace's tables: a program has moved the packet there.

        After bpf_redirect_peer this is the first that is seen of it on a kernel without programs
        in netfilter's hooks; the flow names the device that the packet came in by.
        """
        if record.netns in (0, walk.netns):
            return walk
        there = self._another(replace(record, ifindex=record.state or record.ifindex), walk.side)
        there.protocol, there.ports = walk.protocol, walk.ports
        there.destination = record.hash
        return there

    def _route_answer(self, record: Record) -> LookUp:
        destination = IPv4Address(record.hash.to_bytes(4, "little"))
        value = None
        if not record.verdict:
            device = self.names.place(record.netns, record.ifindex).device
            gateway = IPv4Address(record.mark.to_bytes(4, "little"))
            value = f"via {gateway} dev {device}" if int(gateway) else f"dev {device}"
        return LookUp(map=f"route table {record.arg}", key=str(destination), value=value)

    def _route_out(self, record: Record, stack: tuple[str, ...]) -> None:
        walk = self.walks[-1] if self.walks else None
        answer = self._route_answer(record)
        # ARP asks for a route of its own before it asks for the neighbour
        if walk and walk.side is Side.SEND and any(name.startswith("arp_") for name in stack):
            self._ask_again(record, walk, SendHook.NEIGHBOUR.value, answer)
        elif walk and walk.side is Side.SEND and walk.last(*_LEAVING) is None:
            self._ask_again(record, walk, SendHook.ROUTE.value, answer)
        else:
            netns = record.netns or (walk.netns if walk else 0)
            here = Walk(self.names.place(netns, 0), netns, 0, Side.SEND, first_ns=record.ns)
            self.walks.append(here)
            self._ask_again(record, here, SendHook.ROUTE.value, answer)

    def _ask_again(self, record: Record, walk: Walk, hook: str, answer: LookUp) -> None:
        """Add a question to the newest line of this hook, or begin one."""
        index = walk.last(hook)
        if index is None:
            self.add(record, walk, hook, "on_route", lookups=(answer,))
            return
        hop = walk.hops[index]
        # an earlier table had no answer, and without one it does not say where it was asked
        if not hop.namespace and record.netns:
            walk.place, walk.netns = self.names.place(record.netns, 0), record.netns
            hop = replace(hop, node=walk.place.node, namespace=walk.place.namespace)
        if answer not in hop.lookups:
            hop = replace(hop, lookups=(*hop.lookups, answer))
        walk.hops[index] = hop

    def _free(self, record: Record) -> None:
        location = self.names.symbol(record.location)
        reason = self.names.drop_reasons.get(record.reason, f"reason {record.reason}")
        # the stack says whose chain freed it; where it does not, the hook met last is taken
        entered = chain_of(self.names.frames(record.stack))
        side = Side.SEND if entered == SendHook.NF_OUTPUT else Side.RECEIVE
        walk = self.walks[-1] if self.walks else self.walk(record, side)
        if reason == "TC_EGRESS" and record.ifindex:
            walk = self.walk(record, Side.SEND)  # a program redirected it into that device
        if location == Step.XDP_DRIVER.function and record.ifindex:
            walk = self.walk(record, Side.RECEIVE)  # the first that is seen of its reception
        entered = entered or next(
            (hop.hook for hop in reversed(walk.hops) if hop.hook.startswith("nf_")), ""
        )
        if location == "ping_rcv" and walk.taken(Step.DATA_READY):
            return  # a raw socket has its copy; only no ping socket wanted the original
        drop = classify(location, reason, side=walk.side, entered=entered)
        if drop is None:
            return
        walk.drop = drop
        index = walk.last(drop.hook)
        # a line of the datapath is called after its program's hook
        if index is None and drop.step is Step.TC_INGRESS:
            index = next((i for i, hop in enumerate(walk.hops) if hop.step is drop.step), None)
        if index is None and location == REDIRECTED and walk.hops and walk.hops[-1].program:
            index = len(walk.hops) - 1
        # IPsec has named the reason; the free behind it has none
        if index is not None and told(walk.hops[index]):
            return
        if index is not None:
            walk.hops[index] = replace(
                walk.hops[index],
                verdict="drop",
                # XDP's errno, if there is one, says more than the free behind it
                drop_reason=walk.hops[index].drop_reason or reason,
                reason=_freed(walk.hops[index], location),
            )
            return
        self.add(
            record, walk, drop.hook, "on_free", step=drop.step, verdict="drop",
            reason=f"freed in {location}",
        )  # fmt: skip
        walk.hops[-1] = replace(walk.hops[-1], drop_reason=reason)

    def _consume(self, record: Record) -> None:
        location = self.names.symbol(record.location)
        walk = self.walks[-1] if self.walks else self.walk(record, Side.RECEIVE)
        stack = self.names.own_frames(record.stack)
        if location == XDP_COPY or (not location and self._copied_in_driver(record, stack)):
            self._copied_for_xdp(record, stack, location or Step.XDP_DRIVER.function)
        elif self._kept(record, walk, location or self._ended_by(record)):
            pass
        elif walk.side is Side.SEND:
            self._cut(record, walk, location)
        elif not walk.taken(Step.DATA_READY):
            if self._cut(record, walk, location):
                self._deliver_by_stack(record, walk, stack)
            else:
                self._used_up(record, walk, location, stack)

    def _ended_by(self, record: Record) -> str:
        """Who called consume_skb(), where the kernel does not say (Linux 6.1)."""
        frames = self.names.frames(record.stack)
        return next((name for name in frames if name != "consume_skb"), "")

    def _kept(self, record: Record, walk: Walk, location: str) -> bool:
        """The packet ended in peace where a device's classifiers are asked: one took it."""
        if location not in KEPT:
            return False
        if not walk.hops or not walk.hops[-1].program:
            # in front of the programs that tell of themselves
            receiving = walk.side is Side.RECEIVE
            hook, step = ("tc_ingress", Step.TC_INGRESS) if receiving else ("tc_egress", None)
            self.add(record, walk, hook, "on_consume", step=step)
        hop = walk.hops[-1]
        reason = "; ".join(filter(None, (hop.reason, f"used up in {location}")))
        walk.hops[-1] = replace(hop, verdict="stolen", reason=reason)
        return True

    def _answer(self, record: Record) -> None:
        walk = self.walks[-1] if self.walks else self.walk(record, Side.RECEIVE)
        if record.kind is Kind.ICMP_SEND:
            kind, code = record.verdict >> 8, record.verdict & 0xFF
            self.add(
                record, walk, "icmp_send", "on_icmp_send",
                reason=f"answered with ICMP {icmp_words(kind, code)}",
            )  # fmt: skip
        elif record.kind is Kind.TCP_RESET:
            self.add(
                record, walk, "tcp_send_reset", "on_tcp_reset", reason="answered with a TCP reset"
            )
        else:
            self.add(
                record, walk, "socket_queue", "on_queue_full", step=Step.RECEIVE_QUEUE,
                verdict="drop", reason=f"the receive queue of port {record.arg} is full",
            )  # fmt: skip


def _freed(hop: Hop, location: str) -> str:
    """What freed the packet; behind what XDP said of its failure, if it did."""
    told = f"{hop.reason}; " if hop.drop_reason or hop.verdict == "aborted" else ""
    return f"{told}freed in {location}"
