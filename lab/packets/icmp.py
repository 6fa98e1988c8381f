"""ICMP echo without scapy: workers inside pods send it, and must start quickly."""

from __future__ import annotations

import struct

ECHO_REPLY, ECHO_REQUEST = 0, 8


def checksum(data: bytes) -> int:
    """Return the Internet checksum of some bytes (RFC 1071); over a correct header it is 0."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    # ones' complement: what runs over at the top comes in again below
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def echo_request(identifier: int, sequence: int, payload: bytes = b"") -> bytes:
    """Return an ICMP echo request without IP header."""
    # the checksum is taken over the message with zero in its own place
    blank = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, sequence) + payload
    return blank[:2] + struct.pack("!H", checksum(blank)) + blank[4:]
