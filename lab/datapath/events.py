"""What the datapath says in ``cilium_events``, as values with names.

Numbers get their names from the enums in the objects' BTF, so that a reason added in C is known
here at once; the texts of drop reasons are the comments beside them in ``lib/drop_reasons.h``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path

from lab.datapath.build import SOURCES, build_objects
from lab.errors import KernelError
from lab.kernel.bpfring import Sample
from lab.kernel.btf import read_object
from lab.layouts.events import DropRecord, EventHeader, PolicyVerdictRecord, TraceRecord
from lab.layouts.records import Record

_COMMENTED = re.compile(r"\bDROP_(\w+) = -(\d+), /\* (.+?) \*/")
# bits 0 and 1 of a record, numbered like enum metric_dir: 1 ingress, 2 egress; no program writes 0
_VERDICT_DIRECTIONS = ("ingress", "ingress", "egress")
_MATCHES = ("none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only")
_DEBUG = struct.Struct("<BBHIIII")
_CAPTURE = struct.Struct("<II")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Names of the datapath's numbers.

    Attributes:
        drops: reason (130...) -> C name (``DROP_POLICY``).
        drop_texts: reason -> what the tools print (``Policy denied``).
        metrics: reason below 130 -> C name (``REASON_FORWARDED``).
        points: observation point -> C name without ``TRACE_`` (``TO_OVERLAY``).
        trace_reasons: conntrack's word on a trace -> name (``established``).
        files: file number -> C file (``bpf_lxc.c``).
        types: record type -> C name without ``EVENT_``.
    """

    drops: Mapping[int, str]
    drop_texts: Mapping[int, str]
    metrics: Mapping[int, str]
    points: Mapping[int, str]
    trace_reasons: Mapping[int, str]
    files: Mapping[int, str]
    types: Mapping[int, str]

    def reason(self, number: int) -> str:
        """Return the C name of a metric's reason, drop or not."""
        known = self.drops.get(number) or self.metrics.get(number)
        return known or f"REASON_{number}"

    def reason_text(self, number: int, ext_error: int = 0) -> str:
        """Return a drop reason as ``cilium monitor`` prints it: text, and extended error if any."""
        text = self.drop_texts.get(number, str(number))
        return f"{text}, {ext_error}" if ext_error else text


def read_vocabulary(object_path: Path, header: Path | None = None) -> Vocabulary:
    """Read the names from one compiled object, and the drop texts from a header beside it.

    Raises:
        BuildError: the object has no BTF.
    """
    enums = read_object(object_path).btf.enums

    def names(enum: str, prefix: str) -> dict[int, str]:
        return {n: name.removeprefix(prefix) for name, n in enums.get(enum, {}).items()}

    text = header.read_text() if header and header.exists() else ""
    files = names("source_file", "FILE_")
    return Vocabulary(
        # negative in C, so that a program can return a verdict or a reason; positive in every
        # record
        drops={-n: name for name, n in enums.get("drop_reason", {}).items()},
        drop_texts={int(number): words for _, number, words in _COMMENTED.findall(text)},
        metrics=names("metric_reason", ""),
        points=names("trace_point", "TRACE_"),
        trace_reasons={n: s.lower() for n, s in names("trace_reason", "TRACE_REASON_").items()},
        files={number: f"{name.lower()}.c" for number, name in files.items()},
        types=names("event_type", "EVENT_"),
    )


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Return the names of the datapath in ``bpf/``, from its compiled pod object.

    Raises:
        PrerequisiteError: clang is missing and nothing is cached.
        BuildError: the object does not compile.
    """
    path = build_objects(["bpf_lxc"])["bpf_lxc"]
    return read_vocabulary(path, SOURCES / "lib" / "drop_reasons.h")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every record says.

    Attributes:
        cpu: that wrote it.
        source: endpoint id of the reporting program.
        hash: the packet's flow hash.
        packet: its first bytes, Ethernet header first; empty where none are captured.
        length: its whole length in bytes; 0 where none are captured.
    """

    cpu: int
    source: int
    hash: int
    packet: bytes = field(default=b"", repr=False)
    length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DropEvent(Event):
    """A packet was dropped, and why.

    Attributes:
        reason: number, 130 and up.
        name: C name (``DROP_POLICY``).
        text: in words, as ``cilium monitor`` prints it.
        ext_error: slot of a missed tail call, errno of a helper; 0 none.
        src_identity, dst_identity: 0 unknown.
        dst_endpoint: receiver; 0 when the packet was on its way out.
        file, line: where in ``bpf/`` it was given up.
        ifindex: device of the hook.
    """

    reason: int
    name: str
    text: str
    ext_error: int
    src_identity: int
    dst_identity: int
    dst_endpoint: int
    file: str
    line: int
    ifindex: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent(Event):
    """A packet passed an observation point.

    Attributes:
        point: number; ``name`` its C name without prefix (``TO_OVERLAY``).
        reason: what conntrack said (``new``, ``established`` ...), in words.
        encrypted: it came or goes encrypted.
        src_identity, dst_identity: 0 unknown.
        dst_endpoint: receiver's id, 0 unknown.
        ifindex: device it goes to, 0 unknown.
        original_source: before reverse NAT; None where there was none.
    """

    point: int
    name: str
    reason: str
    encrypted: bool
    src_identity: int
    dst_identity: int
    dst_endpoint: int
    ifindex: int
    original_source: IPv4Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVerdictEvent(Event):
    """What the policy of endpoint ``source`` said about a new flow.

    Attributes:
        remote_identity: of the other side.
        verdict: 0 allowed, positive: proxy port, negative: ``DROP_*``.
        name: C name of the drop; empty if allowed.
        port, protocol: of the destination.
        direction: ``ingress`` or ``egress``.
        match: what kind of entry decided (``L3-L4`` ...).
        audited: a drop that audit mode let pass.
    """

    remote_identity: int
    verdict: int
    name: str
    port: int
    protocol: int
    direction: str
    match: str
    audited: bool

    @property
    def allowed(self) -> bool:
        """Whether the flow may go on."""
        return self.verdict >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugEvent(Event):
    """A debugging note: ``kind`` says which, three numbers what."""

    kind: int
    arguments: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureEvent(Event):
    """A packet as a debugging build saw it."""

    kind: int
    arguments: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """A record of a type this version does not know, whole."""

    type: int
    data: bytes


# perf pads a sample to eight bytes: what lies behind cap_len is no part of the packet
def _packet_after(data: bytes, size: int, header: EventHeader) -> bytes:
    return data[size : size + header.cap_len]


def _enough(data: bytes, size: int, what: str) -> None:
    if len(data) < size:
        raise KernelError(
            f"a record of {len(data)} bytes is too short for {what}, which has {size}",
            hint="the loaded datapath is of another version: bring the lab up again",
        )


def _body(kind: type[Record], data: bytes) -> None:
    _enough(data, kind.size(), kind.C_NAME)


def _drop(sample: Sample, header: EventHeader, names: Vocabulary) -> DropEvent:
    _body(DropRecord, sample.data)
    record = DropRecord.unpack(sample.data)
    return DropEvent(
        cpu=sample.cpu,
        source=header.source,
        hash=header.hash,
        packet=_packet_after(sample.data, DropRecord.size(), header),
        length=header.orig_len,
        reason=header.subtype,
        name=names.reason(header.subtype),
        text=names.reason_text(header.subtype, record.ext_err),
        ext_error=record.ext_err,
        src_identity=record.src_label,
        dst_identity=record.dst_label,
        dst_endpoint=record.dst_id,
        file=names.files.get(record.file, f"file {record.file}"),
        line=record.line,
        ifindex=record.ifindex,
    )


def _trace(sample: Sample, header: EventHeader, names: Vocabulary) -> TraceEvent:
    _body(TraceRecord, sample.data)
    record = TraceRecord.unpack(sample.data)
    # the top bit is TRACE_REASON_ENCRYPTED, laid over whatever conntrack said
    reason = record.reason & 0x7F
    return TraceEvent(
        cpu=sample.cpu,
        source=header.source,
        hash=header.hash,
        packet=_packet_after(sample.data, TraceRecord.size(), header),
        length=header.orig_len,
        point=header.subtype,
        name=names.points.get(header.subtype, f"POINT_{header.subtype}"),
        reason=names.trace_reasons.get(reason, str(reason)),
        encrypted=bool(record.reason & 0x80),
        src_identity=record.src_label,
        dst_identity=record.dst_label,
        dst_endpoint=record.dst_id,
        ifindex=record.ifindex,
        original_source=record.orig_ip4 if int(record.orig_ip4) else None,
    )


def _verdict(sample: Sample, header: EventHeader, names: Vocabulary) -> PolicyVerdictEvent:
    _body(PolicyVerdictRecord, sample.data)
    record = PolicyVerdictRecord.unpack(sample.data)
    match = record.bits >> 3 & 0x7
    return PolicyVerdictEvent(
        cpu=sample.cpu,
        source=header.source,
        hash=header.hash,
        packet=_packet_after(sample.data, PolicyVerdictRecord.size(), header),
        length=header.orig_len,
        remote_identity=record.remote_label,
        verdict=record.verdict,
        name=names.reason(-record.verdict) if record.verdict < 0 else "",
        port=record.dst_port,
        protocol=record.proto,
        direction=_VERDICT_DIRECTIONS[min(record.bits & 0x3, 2)],
        match=_MATCHES[match] if match < len(_MATCHES) else str(match),
        audited=bool(record.bits & 0x40),
    )


def _debug(sample: Sample) -> DebugEvent:
    _enough(sample.data, _DEBUG.size, "a debugging note")
    # a note has no packet, and a header of its own: type, what, who, hash, three arguments
    _, kind, source, flow, *arguments = _DEBUG.unpack_from(sample.data)
    first, second, third = arguments
    return DebugEvent(
        cpu=sample.cpu, source=source, hash=flow, kind=kind, arguments=(first, second, third)
    )


def _capture(sample: Sample, header: EventHeader) -> CaptureEvent:
    _enough(sample.data, EventHeader.size() + _CAPTURE.size, "a capture")
    first, second = _CAPTURE.unpack_from(sample.data, EventHeader.size())
    return CaptureEvent(
        cpu=sample.cpu,
        source=header.source,
        hash=header.hash,
        packet=_packet_after(sample.data, EventHeader.size() + _CAPTURE.size, header),
        length=header.orig_len,
        kind=header.subtype,
        arguments=(first, second),
    )


def decode(sample: Sample, names: Vocabulary) -> Event:
    """Return one record of ``cilium_events`` as a value.

    Raises:
        KernelError: the record is shorter than its type says.
    """
    _body(EventHeader, sample.data)
    header = EventHeader.unpack(sample.data)
    # by name: the numbers are C's (enum event_type), and BTF tells them
    match names.types.get(header.type):
        case "DROP":
            return _drop(sample, header, names)
        case "TRACE":
            return _trace(sample, header, names)
        case "POLICY_VERDICT":
            return _verdict(sample, header, names)
        case "DEBUG":
            return _debug(sample)
        case "CAPTURE":
            return _capture(sample, header)
    return UnknownEvent(
        cpu=sample.cpu,
        source=header.source,
        hash=header.hash,
        type=header.type,
        data=sample.data,
    )
