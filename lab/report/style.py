"""What a grade of evidence and a verdict look like: a symbol and a colour, never colour alone."""

from __future__ import annotations

from lab.report.passages import NO_EVIDENCE
from lab.trace import Evidence, Hop, Side, Step, Tie, Trace

DROPPED = "✗"
SEEN = "✓"
SENT = "▲"
IMPLIED = "~"
SKIPPED = "·"
UNKNOWN = "?"

SYMBOLS = (
    (SEEN, "seen"),
    (SENT, "seen while sending"),
    (DROPPED, "dropped here"),
    (IMPLIED, "implied by a later step"),
    (SKIPPED, "not taken, with the reason"),
    (UNKNOWN, "no evidence either way"),
)
"""Legend of the first column."""

# Okabe and Ito's palette: told apart by readers with any common colour blindness.
COLOURS = {
    Evidence.PROBE: "#0072b2",
    Evidence.TRACEPOINT: "#009e73",
    Evidence.STACK: "#56b4e9",
    Evidence.PROGRAM: "#cc79a7",
    Evidence.COUNTER: "#e69f00",
    Evidence.IMPLIED: "#999999",
    Evidence.NOT_TAKEN: "#999999",
}
DROP_COLOUR = "#d55e00"


def symbol(hop: Hop) -> str:
    """Return the one-character symbol of a hop."""
    if hop.dropped:
        return DROPPED
    if not hop.taken:
        return UNKNOWN if hop.reason == NO_EVIDENCE else SKIPPED
    if hop.evidence is Evidence.IMPLIED:
        return IMPLIED
    return SENT if hop.side is Side.SEND else SEEN


def number(value: int | None) -> str:
    """Return an identity in decimal, empty if it was not seen."""
    return "" if value is None else str(value)


def mark(value: int | None) -> str:
    """Return a packet mark in hexadecimal, empty if it was not seen."""
    return "" if value is None else f"{value:#x}"


def microseconds(value: float | None) -> str:
    """Return microseconds with one decimal, empty if there is no time."""
    return "" if value is None else f"{value:.1f}"


def title(hop: Hop) -> str:
    """Return what the hop is called: the step's title on the receive side, else the hook.

    Step 16 is called after the transport that received the packet (``tcp_v4_rcv``).
    """
    if hop.step is Step.L4_RECEIVE and hop.taken and hop.hook.endswith("_rcv"):
        return hop.hook
    return hop.step.title if hop.step else hop.hook


_ONWARD = (Tie.MERGED_INTO.value, Tie.SPLIT_INTO.value)


def _answer(trace: Trace) -> str:
    """Who told the sender what, if somebody did."""
    answers = (hop for hop in trace.taken if hop.hook in ("icmp_send", "tcp_send_reset"))
    hop = next(answers, None)
    return f"; {hop.namespace or hop.node} {hop.reason}" if hop is not None and hop.reason else ""


def ending(trace: Trace) -> tuple[str, str]:
    """Return how a packet's way ended: a sign and a clause.

    A segment without data wakes nobody: it has arrived where the transport took it in.
    """
    if trace.drops:
        drop = trace.drops[0]
        where = " · ".join(part for part in drop.place if part)
        return DROPPED, f"dropped at {where}: {drop.drop_reason or drop.hook}{_answer(trace)}"
    if trace.delivered:
        return SEEN, "delivered to a socket"
    # its bytes went on in another buffer, whose own trace tells the end
    if onward := [tie for tie in trace.ties if tie.startswith(_ONWARD)]:
        return SEEN, onward[0]
    last = trace.taken[-1] if trace.taken else None
    if last is not None and last.step in (Step.L4_RECEIVE, Step.DATA_READY):
        where = last.namespace or last.node
        if last.verdict == "accepted":
            return SEEN, f"completes a connection: the listener in {where} is woken"
        told = f": {last.reason}" if last.hook == "tcp_v4_rcv" and last.reason else ""
        return SEEN, f"taken in by {title(last)} in {where}{told}"
    return UNKNOWN, "neither delivered nor seen dropped"
