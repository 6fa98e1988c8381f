"""The lower end of the ladder: what driver, XDP and GRO do with a packet, steps 1 to 6."""

from __future__ import annotations

import errno
from dataclasses import replace

from lab.observe.arrival import Arrival
from lab.observe.records import Config, Kind, Record
from lab.observe.walk import Walk
from lab.trace import Evidence, Side, Step, Tie, ranges

XDP_COPY = "skb_pp_cow_data"
"""Where the kernel copies a buffer into a page of the driver's own, for a native program."""
XDP = {
    Kind.XDP_EXCEPTION: ("aborted", "on_xdp_exception"),
    Kind.XDP_REDIRECT: ("redirect", "on_xdp_redirect"),
    Kind.XDP_TX: ("tx", "on_xdp_bulk_tx"),
}
"""Verdict and probe for each kind of record that tells what became of a program's answer."""
_POLLS = ("process_backlog", "veth_poll", "gro_cell_poll", "virtnet_poll", "tun_napi_poll")
_POLL_PROBES = {
    Kind.GRO_RECEIVE: "on_gro_receive",
    Kind.RECEIVE_SKB: "on_receive_skb",
    Kind.CONSUME: "on_consume",
}


def errno_name(number: int) -> str:
    """Return the kernel's word for a negative error number (``EOPNOTSUPP``)."""
    return errno.errorcode.get(-number, str(number))


class Driver(Arrival):
    """Lines about polling, XDP, GRO and GSO."""

    def _poll(self, record: Record, walk: Walk, stack: tuple[str, ...]) -> None:
        walk.poll = next((name for name in stack if name in _POLLS), "")
        if walk.poll:
            probe = _POLL_PROBES[record.kind]
            self.add(
                record,
                walk,
                "napi_poll",
                probe,
                step=Step.NAPI_POLL,
                evidence=Evidence.STACK,
                reason=f"{walk.poll} is on the call stack of the receiving packet",
            )

    def _storage(self, record: Record, walk: Walk) -> None:
        """Before generic XDP runs, a buffer without enough room in front gets other storage."""
        generic = walk.config & Config.XDP_GENERIC and not walk.taken(Step.GENERIC_XDP)
        if generic and walk.head and record.head and record.head != walk.head:
            attached = self.names.hooks.get((walk.netns, walk.ifindex, "xdp"))
            hop = self.add(
                record, walk, "generic_xdp", "on_receive_skb", step=Step.GENERIC_XDP,
                evidence=Evidence.COUNTER, verdict="pass",
                reason="the buffer's storage was exchanged since step 5, as the program needs it",
            )  # fmt: skip
            walk.hops[-1] = replace(hop, program=attached.name if attached else "")

    def _built(self, record: Record, walk: Walk) -> None:
        """What XDP sent on was a frame without a buffer: the one it has now was built here."""
        before = self.walks[-2] if len(self.walks) > 1 else None
        index = before.last("xdp") if before is not None else None
        if before is None or index is None or walk.taken(Step.CLEAN_RX):
            return
        left = before.hops[index].verdict in ("redirect", "tx")
        # with the same buffer it was generic XDP, which keeps it
        if left and all(hop.skb != record.skb for hop in before.hops):
            self.add(
                record, walk, "clean_rx", "on_gro_receive", step=Step.CLEAN_RX,
                reason="the frame that XDP sent on got a buffer of its own here",
            )  # fmt: skip

    def _steered(self, record: Record, walk: Walk) -> None:
        """Queued by one processor and taken up by another: receive packet steering (RPS)."""
        index = walk.last("netif_rx")
        if index is not None and walk.hops[index].cpu != record.cpu:
            walk.hops[index] = replace(
                walk.hops[index],
                reason=f"enqueue_to_backlog of processor {record.cpu}, by receive packet steering",
            )

    def _with_others(self, gro: str) -> str:
        """Which packets GRO put together."""
        relations = self.journey.relations
        into = [r.packet for r in relations if r.tie is Tie.MERGED_INTO]
        parts = [r.packet for r in relations if r.tie is Tie.MADE_OF]
        if gro == "merged" and into:
            return f"GRO merged it into packet {into[0]}, which goes on for both"
        if gro == "held" and parts:
            return f"GRO held it back and merged packets {ranges(parts)} into it"
        return ""

    def _cut(self, record: Record, walk: Walk, location: str) -> None:
        """The large packet's buffer goes where its segments were made (GSO)."""
        pieces = [r.packet for r in self.journey.relations if r.tie is Tie.SPLIT_INTO]
        if pieces and walk.last("gso_segment") is None:
            self.add(
                record, walk, "gso_segment", "on_consume", verdict="split",
                reason=f"{location} cut it into {len(pieces)} segments: packets {ranges(pieces)}",
            )  # fmt: skip

    def _copied_for_xdp(self, record: Record, stack: tuple[str, ...]) -> None:
        """Before a native program runs on veth, the sender's buffer is copied and let go."""
        walk = self.walk(record, Side.RECEIVE)
        self._poll(record, walk, stack)
        self.add(
            record, walk, "clean_rx", "on_consume", step=Step.CLEAN_RX,
            reason=f"{XDP_COPY} copied the buffer into a page of the driver's own",
        )  # fmt: skip
        if (function := Step.XDP_DRIVER.function) in stack:
            attached = self.names.hooks.get((walk.netns, walk.ifindex, "xdp"))
            hop = self.add(
                record, walk, "xdp", "on_consume", step=Step.XDP_DRIVER, evidence=Evidence.STACK,
                reason=f"{function} is on the call stack: the program runs next",
            )  # fmt: skip
            walk.hops[-1] = replace(hop, program=attached.name if attached else "")

    def _xdp(self, record: Record) -> None:
        """What the driver made of the program's answer; reported behind the program."""
        verdict, probe = XDP[record.kind]
        walk = self.walk(record, Side.RECEIVE)
        reason = ""
        # xdp_bulk_tx tells of a whole poll: frames sent above bit 32, frames given up below
        if record.kind is Kind.XDP_TX and record.arg & 0xFFFFFFFF:
            verdict, reason = "drop", f"sending back failed ({errno_name(record.verdict)})"
        elif record.kind is Kind.XDP_REDIRECT and record.verdict:
            verdict, reason = "drop", f"redirecting failed ({errno_name(record.verdict)})"
        index = walk.last("xdp")
        if index is None:
            # a kernel that runs the program on the sender's own buffer shows nothing before this
            self.add(
                record, walk, "xdp", probe, step=Step.XDP_DRIVER, verdict=verdict, reason=reason
            )
            index = len(walk.hops) - 1
        hop = walk.hops[index]
        walk.hops[index] = replace(
            hop, verdict=verdict, evidence=Evidence.TRACEPOINT, object=self.names.object(probe),
            reason=reason or f"{probe.removeprefix('on_')} told so",
            drop_reason=errno_name(record.verdict) if verdict == "drop" else "",
        )  # fmt: skip
