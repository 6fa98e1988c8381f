"""The path of one packet as data: steps, hops, evidence and traces, without root or I/O."""

from lab.trace.comparison import Comparison, Difference
from lab.trace.expect import Expectation
from lab.trace.model import (
    SCHEMA_VERSION,
    Hop,
    LookUp,
    Met,
    PacketId,
    Passage,
    Relation,
    Trace,
    ranges,
)
from lab.trace.own import Attach, Probe
from lab.trace.steps import NO_EVIDENCE, Evidence, SendHook, Side, Step, Tie
from lab.trace.witness import Witness, compare, merge

__all__ = [
    "NO_EVIDENCE",
    "SCHEMA_VERSION",
    "Attach",
    "Comparison",
    "Difference",
    "Evidence",
    "Expectation",
    "Hop",
    "LookUp",
    "Met",
    "PacketId",
    "Passage",
    "Probe",
    "Relation",
    "SendHook",
    "Side",
    "Step",
    "Tie",
    "Trace",
    "Witness",
    "compare",
    "merge",
    "ranges",
]
