"""What the neighbour table said when a packet asked it for the next hop's address."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from lab.observe.records import Record
from lab.observe.walk import Builder
from lab.trace import Met, SendHook, Side

# NUD_* (linux/neighbour.h)
_STATES = {0: "NONE", 0x01: "INCOMPLETE", 0x02: "REACHABLE", 0x04: "STALE", 0x08: "DELAY",
           0x10: "PROBE", 0x20: "FAILED", 0x40: "NOARP", 0x80: "PERMANENT"}  # fmt: skip
_MEANS = {"INCOMPLETE": "the packet waits for ARP's answer", "FAILED": "nobody answered ARP",
          "DELAY": "known, to be confirmed", "STALE": "known, to be confirmed"}  # fmt: skip


def told_neighbour(builder: Builder, record: Record) -> None:
    """Put the state of a neighbour, behind the packet's question, beside the hop that asked.

    A neighbour that is known and fresh is not asked: then nothing is told. Where ARP is answered
    at once, on the same processor, the state is already the one behind the answer.
    """
    state = _STATES.get(record.arg, f"{record.arg:#x}")
    device = builder.names.place(record.netns, record.ifindex).device
    address = IPv4Address(record.hash.to_bytes(4, "little"))
    met = Met(
        kind="neighbour",
        name=f"{address} dev {device}",
        text=_MEANS.get(state, ""),
        verdict=state,
        source="neigh_event_send_done",
    )
    asked = [walk for walk in builder.walks if walk.netns == record.netns]
    for walk in reversed(asked):
        index = walk.last(SendHook.NEIGHBOUR.value)
        asks = {look_up.key for look_up in walk.hops[index].lookups} if index is not None else set()
        if index is not None and str(address) in asks and not walk.hops[index].met:
            walk.hops[index] = replace(walk.hops[index], met=(met,))
            return
    # a confirmation in passing, for a neighbour that is known: the packet does not wait for it
    if asked and asked[-1] is builder.walks[-1] and asked[-1].side is Side.SEND:
        hop = builder.add(record, asked[-1], SendHook.NEIGHBOUR.value, "on_neighbour")
        asked[-1].hops[-1] = replace(hop, met=(met,))
