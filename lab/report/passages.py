"""A trace cut into the places it passed, as people read it: device by device, 19 steps each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from lab.trace import Evidence, Hop, Side, Step, Trace
from lab.trace.model import Passage

_LOOK_BACK = 2
"""A hook of the sender that reports on leaving (net_dev_xmit) comes after the receiver's first."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a ladder: a hop, or a run of steps that were not taken for one reason.

    Attributes:
        hop: the hop; of a run the first.
        steps: the steps that the line speaks of; empty on the send side.
    """

    hop: Hop
    steps: tuple[Step, ...] = ()

    @property
    def number(self) -> str:
        """``7``, ``9-19`` or empty."""
        if not self.steps:
            return ""
        first, last = self.steps[0].number, self.steps[-1].number
        return str(first) if first == last else f"{first}-{last}"


def passages(trace: Trace) -> tuple[Passage, ...]:
    """Return the places that the packet passed, in order; a place met again is a new passage.

    Hops of two places that interleave in time (a veth's sender reports its end after its
    receiver's beginning) are put back together.
    """
    runs: list[Passage] = []
    for run in trace.passages():
        for back in range(1, min(_LOOK_BACK, len(runs)) + 1):
            if _continues(runs[-back], run):
                runs[-back] = Passage(run.place, run.side, runs[-back].hops + run.hops)
                break
        else:
            runs.append(run)
    return tuple(runs)


def _continues(earlier: Passage, later: Passage) -> bool:
    if (earlier.place, earlier.side) != (later.place, later.side):
        return False
    if later.side is not Side.RECEIVE:
        return True
    before = [hop.step for hop in earlier.hops if hop.step is not None and hop.taken]
    after = [hop.step for hop in later.hops if hop.step is not None and hop.taken]
    # steps that begin anew are another visit of the same device
    return not before or not after or before[-1] <= after[0]


def lines(passage: Passage) -> tuple[Line, ...]:
    """Return the lines of a passage; on the receive side every one of the 19 steps is spoken of.

    Neighbouring steps that were not taken for the same reason share a line. A step that the
    trace says nothing about becomes a line that says so.
    """
    hops = list(passage.hops)
    known = {hop.step for hop in hops if hop.step is not None}
    if passage.side is Side.RECEIVE and known:
        # every step is spoken of: a gap in the ladder would be read as "not taken"
        hops += [_unknown(passage, step) for step in Step if step not in known]
        hops = _in_step_order(hops)
    found: list[Line] = []
    for skipped, run in groupby(hops, key=_skip_key):
        if skipped is None:
            found += [Line(hop, (hop.step,) if hop.step else ()) for hop in run]
        else:
            same = list(run)
            found.append(Line(same[0], tuple(hop.step for hop in same if hop.step)))
    return tuple(found)


def _unknown(passage: Passage, step: Step) -> Hop:
    node, namespace, device = passage.place
    return Hop(
        step=step,
        hook=step.function,
        evidence=Evidence.NOT_TAKEN,
        node=node,
        namespace=namespace,
        device=device,
        reason=NO_EVIDENCE,
    )


NO_EVIDENCE = "no evidence either way"


def _in_step_order(hops: list[Hop]) -> list[Hop]:
    # Hops that were seen keep their order in time; the others go before the next higher step.
    ordered = [hop for hop in hops if hop.taken or hop.step is None]
    skipped = [(hop.step, hop) for hop in hops if hop.step is not None and not hop.taken]
    for step, hop in sorted(skipped, key=lambda pair: pair[0]):
        at = next(
            (n for n, other in enumerate(ordered) if _behind(other, step)),
            len(ordered),
        )
        ordered.insert(at, hop)
    return ordered


def _behind(hop: Hop, step: Step) -> bool:
    if hop.hook == "cgroup_ingress":
        return step <= Step.XFRM_POLICY_L4  # a control group's programs run between 17 and 18
    return hop.step is not None and step < hop.step


def _skip_key(hop: Hop) -> str | None:
    return None if hop.taken or hop.step is None else hop.reason
