"""The lower end of the ladder: what polling, GRO and GSO do with a packet."""

from __future__ import annotations

from dataclasses import replace

from lab.observe.arrival import Arrival
from lab.observe.identify import IN_TRANSPORT
from lab.observe.records import Kind, Record
from lab.observe.walk import Walk
from lab.trace import Evidence, Side, Step, Tie, ranges

_POLLS = ("process_backlog", "veth_poll", "gro_cell_poll", "virtnet_poll", "tun_napi_poll")
_POLL_PROBES = {
    Kind.GRO_RECEIVE: "on_gro_receive",
    Kind.RECEIVE_SKB: "on_receive_skb",
    Kind.CONSUME: "on_consume",
}


class Driver(Arrival):
    """Lines about polling, GRO and GSO."""

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

    def _cut(self, record: Record, walk: Walk, location: str) -> bool:
        """The large packet's buffer goes where its segments were made (GSO): whether it was."""
        pieces = [r.packet for r in self.journey.relations if r.tie is Tie.SPLIT_INTO]
        if not pieces or walk.last("gso_segment") is not None:
            return False
        self.add(
            record, walk, "gso_segment", "on_consume", verdict="split",
            reason=f"{location} cut it into {len(pieces)} segments: packets {ranges(pieces)}",
        )  # fmt: skip
        walk.cut_into = ranges(pieces)
        return True

    def _cut_out(self, record: Record) -> None:
        """A datagram that UDP cut out of a large one begins in the transport of its receiver."""
        parents = [r.packet for r in self.journey.relations if r.tie is Tie.SEGMENT_OF]
        if parents and record.kind in IN_TRANSPORT and not self.walks:
            self.walk(record, Side.RECEIVE).cut_from = parents[0]
