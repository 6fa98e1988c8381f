"""The path of one packet as data: steps, hops, evidence and traces, without root or I/O."""

from lab.trace.expect import Expectation
from lab.trace.model import SCHEMA_VERSION, Hop, LookUp, PacketId, Passage, Trace
from lab.trace.own import Attach, Probe
from lab.trace.steps import Evidence, SendHook, Side, Step

__all__ = [
    "SCHEMA_VERSION",
    "Attach",
    "Evidence",
    "Expectation",
    "Hop",
    "LookUp",
    "PacketId",
    "Passage",
    "Probe",
    "SendHook",
    "Side",
    "Step",
    "Trace",
]
