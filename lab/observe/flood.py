"""One packet to several ports: the whole way of the copy that arrives.

A bridge that does not know an address yet gives the frame to every port: the receiver gets a copy,
and the buffer that the sender filled may end at a bystander. A reader asks for the way from the
sender to the receiver, so the sender's part is put in front of the copy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.trace import Hop, Tie, Trace

_BYSTANDER = "OTHERHOST"
_BRIDGED = "the bridge took the frame and forwarded it"
"""How the reason of a step behind a bridge's port begins (lab.observe.assemble)."""


def with_arriving_copy(sent: Trace, packets: Sequence[Trace]) -> Trace:
    """Return the packet itself, or, where only a copy of it was delivered, that copy's whole way.

    Args:
        sent: as it left the sender.
        packets: of the same recording.
    """
    refused = {hop.drop_reason for hop in sent.drops} - {_BYSTANDER}
    if sent.delivered or refused:
        return sent
    copies = {one.packet for one in sent.relations if one.tie is Tie.CLONED_AS}
    for copy in packets:
        if copy.packet.number in copies and copy.delivered and not copy.drops:
            return _joined(sent, copy)
    return sent


def _joined(sent: Trace, copy: Trace) -> Trace:
    born = min(hop.ns for hop in copy.taken)
    begin = min(hop.ns for hop in sent.taken)
    last = max((n for n, hop in enumerate(sent.hops) if hop.taken and hop.ns < born), default=-1)
    before = [hop for hop in sent.hops[: last + 1] if not hop.taken or hop.ns < born]
    # the steps that the frame did not take at its last port stand behind its last sight there
    for hop in sent.hops[last + 1 :]:
        if hop.taken or hop.place != sent.hops[last].place:
            break
        flooded = hop.reason.startswith(_BRIDGED)
        before.append(replace(hop, reason=f"{_BRIDGED} to every port") if flooded else hop)
    return replace(
        copy,
        packet=sent.packet,
        hops=(*before, *(_since(hop, begin) for hop in copy.hops)),
        relations=(*sent.relations, *copy.relations),
    )


def _since(hop: Hop, begin: int) -> Hop:
    return replace(hop, us=(hop.ns - begin) / 1000) if hop.taken else hop
