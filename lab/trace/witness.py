"""Two witnesses of one packet: where they agree, where they do not, and one ladder out of two.

One witness is the kernel's tracepoints, call stacks and the programs in its hooks; the other its
functions, probed at entry. Each made its own trace from its own records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum

from lab.trace.comparison import Comparison, Difference
from lab.trace.model import Hop, Trace
from lab.trace.steps import NO_EVIDENCE, Evidence, SendHook, Side, Step


class Witness(StrEnum):
    """Who is asked about a packet."""

    TRACEPOINTS = "tracepoints"
    FUNCTIONS = "functions"
    BOTH = "both"


Key = tuple[str, str, int]
_CHAINS = (
    SendHook.NF_OUTPUT.value, SendHook.NF_FORWARD.value, SendHook.NF_POSTROUTING.value,
)  # fmt: skip
_SENDING = {  # hook -> what the tracepoints' and the functions' witness see it with
    SendHook.DEV_QUEUE.value: ("on_dev_queue", "f_dev_queue"),
    SendHook.DEV_XMIT.value: ("on_dev_xmit", "f_dev_xmit"),
    SendHook.TC_EGRESS.value: ("tc_egress", "f_classify"),
    **dict.fromkeys(_CHAINS, ("netfilter_first", "f_netfilter")),
}


def compare(tracepoints: Trace, functions: Trace) -> Comparison:
    """Return what two witnesses say of the same packet, step by step.

    A step that one of them has no means to see is told by the other alone: no contradiction. The
    packet was at the same devices only if both saw it receive there.
    """
    ours, theirs = dict(_received(tracepoints)), dict(_received(functions))
    agreed = 0
    alone: list[str] = []
    differences: list[Difference] = []
    for key in dict.fromkeys((*ours, *theirs)):
        if key not in ours or key not in theirs:
            words = ("received here", "not seen here")
            said = words if key in ours else words[::-1]
            differences.append(Difference(key[:2], None, "", *said))
            continue
        for step in Step:
            one, other = _best(ours[key], step), _best(theirs[key], step)
            if _state(one) is _state(other):
                agreed += 1
            elif None in (_state(one), _state(other)):
                who = Witness.FUNCTIONS if _state(one) is None else Witness.TRACEPOINTS
                alone.append(f"{step} at {'/'.join(key[:2])} ({who})")
            else:
                said = (_words(one), _words(other))
                differences.append(Difference(key[:2], step, step.title, *said))
    more = _compare_sending(tracepoints, functions)
    alone += more.alone
    differences += more.differences
    return Comparison(agreed + more.agreed, tuple(alone), tuple(differences))


def _received(trace: Trace) -> Iterator[tuple[Key, tuple[Hop, ...]]]:
    """Receive passages by namespace, device and how often the packet had been there."""
    met: dict[tuple[str, str], int] = {}
    for passage in trace.passages():
        if passage.side is Side.RECEIVE:
            _, namespace, device = passage.place
            number = met.setdefault((namespace, device), 0)
            met[namespace, device] += 1
            yield (namespace, device, number), passage.hops


def _best(hops: tuple[Hop, ...], step: Step) -> Hop | None:
    found = (hop for hop in hops if hop.step is step)
    return min(found, key=lambda hop: hop.evidence.rank, default=None)


def _state(hop: Hop | None) -> bool | None:
    """Taken, not taken, or None: this witness cannot tell."""
    if hop is None or (not hop.taken and hop.reason.startswith(NO_EVIDENCE)):
        return None
    return hop.taken


def _words(hop: Hop | None) -> str:
    return f"{hop.evidence}: {hop.reason}" if hop is not None else "nothing"


def _compare_sending(tracepoints: Trace, functions: Trace) -> Comparison:
    ours, theirs = _sent(tracepoints), _sent(functions)
    agreed = len(ours & theirs)
    alone: list[str] = []
    differences: list[Difference] = []
    for namespace, device, hook in sorted(ours ^ theirs):
        mine = (namespace, device, hook) in ours
        by_tracepoints, by_functions = _SENDING[hook]
        blind = (functions, by_functions) if mine else (tracepoints, by_tracepoints)
        if not _watches(*blind):
            who = Witness.TRACEPOINTS if mine else Witness.FUNCTIONS
            alone.append(f"{hook} at {namespace}/{device} ({who})")
            continue
        said = ("passed", "not passed") if mine else ("not passed", "passed")
        differences.append(Difference((namespace, device), None, hook, *said))
    return Comparison(agreed, tuple(alone), tuple(differences))


def _watches(trace: Trace, program: str) -> bool:
    return any(source.startswith(f"{program}:") for source in trace.sources)


def _sent(trace: Trace) -> set[tuple[str, str, str]]:
    return {
        (hop.namespace, hop.device, _plain(hop))
        for hop in trace.taken
        if _plain(hop) in _SENDING and (hop.side is Side.SEND or hop.hook in _CHAINS)
    }


def _plain(hop: Hop) -> str:
    """The kernel's name of a hook: a datapath program's line carries the program's own."""
    return SendHook.TC_EGRESS.value if hop.side is Side.SEND and hop.program else hop.hook


# -- one ladder out of two ----------------------------------------------------------------------


def merge(tracepoints: Trace, functions: Trace) -> Trace:
    """Return one trace in which each step has the better of two proofs, and how they compare.

    Lines that only the functions' witness has stand where they belong in time.
    """
    runs = [list(passage.hops) for passage in tracepoints.passages()]
    theirs = dict(_received(functions))
    met: dict[tuple[str, str], int] = {}
    for run in runs:
        first = run[0]
        if first.side is Side.RECEIVE:
            number = met.setdefault((first.namespace, first.device), 0)
            met[first.namespace, first.device] += 1
            # by how often it was there: a packet that comes back to a device has a second ladder of
            # its own
            if (other := theirs.pop((first.namespace, first.device, number), None)) is not None:
                _join(run, other)
    _join_sending(runs, [hop for hop in functions.taken if hop.side is not Side.RECEIVE])
    for left in theirs.values():
        _insert_run(runs, list(left))
    hops = [hop for run in runs for hop in run]
    begin = min((hop.ns for hop in hops if hop.taken), default=0)
    return replace(
        tracepoints,
        hops=tuple(replace(h, us=(h.ns - begin) / 1000) if h.taken else h for h in hops),
        lost=tracepoints.lost + functions.lost,
        sources=(*tracepoints.sources, *functions.sources),
        missing=(*tracepoints.missing, *functions.missing),
        witnesses=compare(tracepoints, functions),
    )


def _join(run: list[Hop], other: tuple[Hop, ...]) -> None:
    """Put what functions told of one device into the lines of the tracepoints about it."""
    # who saw the packet get further knows better why a step was left out
    longer = _last_step(other) > _last_step(tuple(run))
    for hop in other:
        index = next(
            (i for i, own in enumerate(run) if own.step is hop.step and hop.step is not None), None
        )
        if index is not None:
            run[index] = _better(run[index], hop, longer)
        elif hop.taken:
            _insert(run, hop)


def _last_step(hops: tuple[Hop, ...]) -> int:
    return max((hop.step.number for hop in hops if hop.step and hop.taken), default=0)


def _better(own: Hop, other: Hop, longer: bool) -> Hop:
    if not other.taken:
        unknown = not own.taken and own.reason.startswith(NO_EVIDENCE)
        return replace(own, reason=other.reason) if unknown or (longer and not own.taken) else own
    if not own.taken:
        return other
    if other.evidence.rank >= own.evidence.rank:
        return own
    if own.evidence in (Evidence.IMPLIED, Evidence.STACK):  # the time was another function's
        return replace(
            other,
            verdict=own.verdict or other.verdict,
            program=own.program,
            lookups=own.lookups,
            before=other.before or own.before,
            after=own.after,
        )
    told = f"{other.reason}; {own.evidence}: {own.reason}" if own.reason else other.reason
    return replace(
        own,
        evidence=other.evidence,
        object=other.object,
        reason=told,
        verdict=own.verdict or other.verdict,
        drop_reason=own.drop_reason or other.drop_reason,
        before=own.before or other.before,
    )


def _insert(run: list[Hop], hop: Hop) -> None:
    earlier = [i for i, own in enumerate(run) if own.taken and own.ns <= hop.ns]
    run.insert(earlier[-1] + 1 if earlier else 0, hop)


def _join_sending(runs: list[list[Hop]], hops: list[Hop]) -> None:
    for hop in hops:
        near = [run for run in runs if run[0].side is Side.SEND and _same_place(run, hop)]
        if not near:
            _insert_run(runs, [hop])
            continue
        # the two have seen it a moment apart: the same hook counts for more than the nearest line
        same = [run for run in near if any(_plain(own) == _plain(hop) for own in run)]
        run = min(same or near, key=lambda run: min(abs(own.ns - hop.ns) for own in run))
        index = next((i for i, own in enumerate(run) if _plain(own) == _plain(hop)), None)
        if index is None:
            _insert(run, hop)
        else:
            run[index] = _better(run[index], hop, False)


def _same_place(run: list[Hop], hop: Hop) -> bool:
    first = run[0]
    devices = {own.device for own in run} | {"", hop.device}
    # hooks above the device name none: "" and one device are one way out
    return first.namespace == hop.namespace and len(devices) <= 2


def _insert_run(runs: list[list[Hop]], new: list[Hop]) -> None:
    begin = min((hop.ns for hop in new if hop.taken), default=0)
    later = (i for i, run in enumerate(runs) if min(h.ns for h in run if h.taken) > begin)
    runs.insert(next(later, len(runs)), new)
