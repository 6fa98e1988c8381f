"""Headers of one Ethernet frame, read once and cheaply: the wire does this for every packet."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

from lab.wire.rules import Kind

ETHERNET_BYTES = 14
ICMP, TCP, UDP = 1, 6, 17
_IP = struct.Struct("!BxHHHxBxx4s4s")
_FRAGMENT_OFFSET = 0x1FFF
_TCP = struct.Struct("!HHIIBBHHH")
_SEQUENCE_SPACE = 1 << 32


class Flag(IntFlag):
    """TCP flags, as in the header's byte 13."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32
    ECE = 64
    CWR = 128


class Header(NamedTuple):
    """What the network and transport headers say; numbers as on the wire.

    ``length`` is the transport payload in bytes, ``ip_bytes`` the whole IP packet; a UDP or ICMP
    packet has zero sequence and acknowledgement numbers and flags.
    """

    protocol: int
    source: bytes
    destination: bytes
    ip_id: int
    ip_bytes: int
    source_port: int = 0
    destination_port: int = 0
    seq: int = 0
    ack: int = 0
    flags: int = 0
    window: int = 0
    length: int = 0
    options: bytes = b""


@dataclass(frozen=True, slots=True)
class Options:
    """TCP options of one segment; None or empty where absent. SACK blocks as (left, right)."""

    mss: int | None = None
    window_shift: int | None = None
    sack_permitted: bool = False
    sack: tuple[tuple[int, int], ...] = ()
    timestamp: tuple[int, int] | None = None


def parse(frame: bytes) -> Header | None:
    """Return the headers of an IPv4 frame; None for anything else or a frame cut short."""
    if len(frame) < ETHERNET_BYTES + 20 or frame[12:14] != b"\x08\x00":
        return None
    first, total, ip_id, fragment, protocol, source, destination = _IP.unpack_from(
        frame, ETHERNET_BYTES
    )
    start = ETHERNET_BYTES + (first & 15) * 4
    if first >> 4 != 4:
        return None
    # behind the first fragment there is no transport header, only payload that looks like one
    if fragment & _FRAGMENT_OFFSET:
        return Header(protocol, source, destination, ip_id, total)
    if protocol == TCP and len(frame) >= start + 20:
        sport, dport, seq, ack, offset, flags, window, _, _ = _TCP.unpack_from(frame, start)
        header_bytes = (offset >> 4) * 4
        return Header(
            protocol,
            source,
            destination,
            ip_id,
            total,
            sport,
            dport,
            seq,
            ack,
            flags,
            window,
            # from the lengths in the headers: short frames are padded, long ones were cut by the
            # log
            total - (first & 15) * 4 - header_bytes,
            frame[start + 20 : start + header_bytes],
        )
    if protocol == UDP and len(frame) >= start + 8:
        sport, dport, length = struct.unpack_from("!HHH", frame, start)
        return Header(protocol, source, destination, ip_id, total, sport, dport, length=length - 8)
    return Header(protocol, source, destination, ip_id, total, length=len(frame) - start)


def kind_of(header: Header | None) -> Kind:
    """Name a packet by its headers alone (a window update is still a pure ACK here)."""
    if header is None or (header.protocol in (TCP, UDP) and not header.source_port):
        return Kind.ANY
    if header.protocol == UDP:
        return Kind.DATAGRAM
    if header.protocol != TCP:
        return Kind.ICMP if header.protocol == ICMP else Kind.ANY
    flags = header.flags
    # order matters: a reset or SYN stays one whatever it carries, and data with FIN is data first
    if flags & Flag.RST:
        return Kind.RST
    if flags & Flag.SYN:
        return Kind.SYN_ACK if flags & Flag.ACK else Kind.SYN
    if header.length:
        return Kind.DATA
    return Kind.FIN if flags & Flag.FIN else Kind.PURE_ACK


def options_of(raw: bytes) -> Options:
    """Decode the options bytes of a TCP header; a malformed tail is ignored."""
    mss = shift = None
    permitted, timestamp = False, None
    sack: tuple[tuple[int, int], ...] = ()
    at = 0
    while at < len(raw) and raw[at] != 0:
        # NOP fills up to a multiple of four bytes; like the end (0) it has no length byte
        if raw[at] == 1:
            at += 1
            continue
        # a length below 2 would make this loop stand still
        if at + 1 >= len(raw) or not 2 <= raw[at + 1] <= len(raw) - at:
            break
        kind, body = raw[at], raw[at + 2 : at + raw[at + 1]]
        if kind == 2 and len(body) == 2:
            mss = int.from_bytes(body, "big")
        elif kind == 3 and len(body) == 1:
            shift = body[0]
        elif kind == 4:
            permitted = True
        elif kind == 5:
            edges = struct.unpack(f"!{len(body) // 4}I", body[: len(body) // 4 * 4])
            sack = tuple(zip(edges[::2], edges[1::2], strict=False))
        elif kind == 8 and len(body) == 8:
            left, right = struct.unpack("!II", body)
            timestamp = (left, right)
        at += raw[at + 1]
    return Options(mss, shift, permitted, sack, timestamp)


def distance(start: int, end: int) -> int:
    """Bytes from one sequence number to another, negative if ``end`` lies before ``start``."""
    # numbers wrap at 2^32: whichever way round is shorter is meant (RFC 9293, 3.4)
    gap = (end - start) % _SEQUENCE_SPACE
    return gap - _SEQUENCE_SPACE if gap >= _SEQUENCE_SPACE // 2 else gap
