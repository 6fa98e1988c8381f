"""Rules that were made while a recording ran: which packets may have met them untold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.trace import Trace

Late = tuple[str, int, int]
"""A namespace; kernel times between which its first rules were made, and began to be traced."""


def with_late_rules(traces: Sequence[Trace], late: Sequence[Late]) -> tuple[Trace, ...]:
    """Return the traces, each of which says where it may have met rules that were not traced yet.

    Args:
        traces: of one recording.
        late: namespaces that got their first rules while it ran.
    """
    return tuple(
        replace(trace, missing=(*trace.missing, *_words(trace, late))) if late else trace
        for trace in traces
    )


def _words(trace: Trace, late: Sequence[Late]) -> list[str]:
    return [
        f"netfilter rules of {name}: made while this packet was under way, and traced only after it"
        for name, since_ns, until_ns in late
        if any(hop.namespace == name and since_ns <= hop.ns < until_ns for hop in trace.taken)
    ]
