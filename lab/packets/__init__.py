"""Packets: the cookie that marks ours, and named frames built with scapy."""

from __future__ import annotations

import secrets
import struct

COOKIE_MAGIC = b"labCOOKi"
"""Eight bytes before a cookie: the tracer looks for them at the end of a payload."""

COOKIE_BYTES = 16
"""Magic and cookie together: what a payload grows by."""

_COOKIE = struct.Struct("!8sQ")


def new_cookie() -> int:
    """Return a random 64-bit number that no other packet carries."""
    return secrets.randbits(64) | 1


def with_cookie(payload: bytes, cookie: int) -> bytes:
    """Return ``payload`` with the cookie at its end, where encapsulation never moves it."""
    return payload + _COOKIE.pack(COOKIE_MAGIC, cookie)


def cookie_of(payload: bytes) -> int | None:
    """Return the cookie at the end of a payload or frame, or None."""
    if len(payload) < COOKIE_BYTES:
        return None
    magic, cookie = _COOKIE.unpack(payload[-COOKIE_BYTES:])
    return cookie if magic == COOKIE_MAGIC else None
