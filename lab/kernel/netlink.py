"""Netlink messages and their attributes (linux/netlink.h), for what pyroute2 does not ask."""

import struct
from collections.abc import Iterator

HEAD = struct.Struct("=IHHII")
"""Length, type, flags, sequence, port of ``struct nlmsghdr``."""
DUMP = 0x301
"""``NLM_F_REQUEST | NLM_F_DUMP``: everything there is."""
END = (2, 3)
"""``NLMSG_ERROR`` and ``NLMSG_DONE``, one of which ends a dump."""

_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF


def request(kind: int, body: bytes) -> bytes:
    """Return the message that asks for a dump."""
    return HEAD.pack(HEAD.size + len(body), kind, DUMP, 1, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, flags and body of each message of a datagram."""
    at = 0
    while at + HEAD.size <= len(data):
        length, kind, flags, _, _ = HEAD.unpack_from(data, at)
        if length < HEAD.size:
            return
        yield kind, flags, data[at + HEAD.size : at + length]
        at += _padded(length)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes of a body, or of another attribute, by type."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        # the two upper bits of an attribute's type are flags (nested, network byte order)
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += _padded(length)
    return found


def _padded(length: int) -> int:
    # messages and attributes begin at multiples of four bytes; their lengths leave the padding out
    return (length + 3) & ~3
