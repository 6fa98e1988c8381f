"""Records of the datapath's rings: ``cilium_events`` (perf), ``cilium_signals``, ``cilium_mind``.

Little endian; up to 128 bytes of the packet follow those that capture (facts: Cilium's monitor
protocol). `lab.datapath.events` gives them names.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import ClassVar

from lab.layouts.records import Record, be16, ipv4, padding, raw, s8, s32, u8, u16, u32, u64


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHeader(Record):
    """First 16 bytes of every record with a packet behind it."""

    C_NAME: ClassVar[str] = "event_header"
    type: int = u8()
    subtype: int = u8()
    source: int = u16()
    hash: int = u32()
    orig_len: int = u32()
    cap_len: int = u16()
    version: int = u16()


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRecord(Record):
    """DROP, version 1: what follows the header is who, to whom, and where it was given up."""

    C_NAME: ClassVar[str] = "drop_record"
    # EventHeader, which is read first: it says which record this is
    common: bytes = raw(16)
    src_label: int = u32()
    dst_label: int = u32()
    dst_id: int = u32()
    line: int = u16()
    file: int = u8()
    ext_err: int = s8()
    ifindex: int = u32()


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRecord(Record):
    """TRACE, version 1: a packet passed an observation point."""

    C_NAME: ClassVar[str] = "trace_notify"
    common: bytes = raw(16)
    src_label: int = u32()
    dst_label: int = u32()
    dst_id: int = u16()
    reason: int = u8()
    flags: int = u8()
    ifindex: int = u32()
    orig_ip4: IPv4Address = ipv4()
    orig_ip_rest: bytes = padding(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVerdictRecord(Record):
    """POLICY_VERDICT: what the policy said about a new flow.

    ``bits``: direction 0..1, IPv6 2, match type 3..5, audited 6.
    """

    C_NAME: ClassVar[str] = "policy_verdict_notify"
    common: bytes = raw(16)
    remote_label: int = u32()
    verdict: int = s32()
    dst_port: int = be16()
    proto: int = u8()
    bits: int = u8()
    auth_type: int = u8()
    pad: bytes = padding(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRecord(Record):
    """Record of ``cilium_signals``."""

    C_NAME: ClassVar[str] = "signal_record"
    signal: int = u32()
    proto: int = u32()


@dataclass(frozen=True, slots=True, kw_only=True)
class MindNote(Record):
    """What a program looked up, found or decided."""

    C_NAME: ClassVar[str] = "mind_note"
    arg: int = s32()
    kind: int = u8()
    what: int = u8()
    found: int = u8()
    file: int = u8()
    key: bytes = raw(24)
    value: bytes = raw(24)


@dataclass(frozen=True, slots=True, kw_only=True)
class MindRecord(Record):
    """Record of ``cilium_mind``: a note, when, and about which socket buffer."""

    C_NAME: ClassVar[str] = "mind_record"
    ns: int = u64()
    skb: int = u64()
    hash: int = u32()
    ifindex: int = u32()
    mark: int = u32()
    endpoint: int = u16()
    pad: bytes = padding(2)
    note: bytes = raw(56)
