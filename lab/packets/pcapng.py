"""Captures as pcapng: several interfaces, a comment per packet, nanosecond times.

The file is written from values, so that a trace, a recording of both ends of a connection and
a capture made in the kernel all end in the same few lines.

Source: draft-ietf-opsawg-pcapng (section, interface description and enhanced packet blocks).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from lab.errors import InputError

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 0x00000001, 0x00000006
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_END, _COMMENT = 0, 1
_SHB_USER_APPLICATION = 4
_IF_NAME, _IF_DESCRIPTION, _IF_TIME_RESOLUTION = 2, 3, 9
_EPB_FLAGS = 2
_NANOSECONDS = b"\x09"
_UNLIMITED = 0


class LinkType(IntEnum):
    """What the first byte of a captured packet belongs to (values of the pcap registry)."""

    ETHERNET = 1
    RAW_IP = 101


class Direction(IntEnum):
    """Which way a packet passed the interface it was captured at (values of ``epb_flags``)."""

    UNKNOWN = 0
    INBOUND = 1
    OUTBOUND = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One place packets were captured at; Wireshark shows its name beside each packet."""

    name: str
    description: str = ""
    link_type: LinkType = LinkType.ETHERNET


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One packet as it passed one interface.

    Attributes:
        interface: index into the interfaces of the file, from 0.
        time_ns: nanoseconds since 1970; a monotonic clock is shifted by the caller.
        data: the bytes captured; may be fewer than the packet had.
        length: bytes the packet had on the wire; 0 means ``len(data)``.
        comment: shown by Wireshark as the packet's comment; empty for none.
    """

    interface: int
    time_ns: int
    data: bytes
    length: int = 0
    comment: str = ""
    direction: Direction = Direction.UNKNOWN


def encode(
    interfaces: Iterable[Interface], packets: Iterable[Packet], *, comment: str = ""
) -> bytes:
    """Return one complete pcapng section holding ``packets`` in the order given.

    Raises:
        InputError: a packet names an interface that is not in ``interfaces``.
    """
    places = tuple(interfaces)
    blocks = [_section(comment)]
    blocks += [_interface(place) for place in places]
    for packet in packets:
        if not 0 <= packet.interface < len(places):
            raise InputError(
                f"a packet was captured at interface {packet.interface}, "
                f"but the file describes {len(places)}",
                hint="pass every interface in the order the packets count them",
            )
        blocks.append(_packet(packet))
    return b"".join(blocks)


def write(
    path: Path,
    interfaces: Iterable[Interface],
    packets: Iterable[Packet],
    *,
    comment: str = "",
) -> Path:
    """Leave a pcapng file at ``path`` and return the path; an older file is replaced."""
    path.write_bytes(encode(interfaces, packets, comment=comment))
    return path


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the body of every block of a little-endian pcapng file.

    Raises:
        InputError: the data ends inside a block or a block's two lengths differ.
    """
    at = 0
    while at < len(data):
        if at + 12 > len(data):
            raise InputError("the capture ends inside a block", hint="it was cut; write it again")
        kind, length = struct.unpack_from("<II", data, at)
        if length < 12 or at + length > len(data):
            raise InputError("the capture ends inside a block", hint="it was cut; write it again")
        (again,) = struct.unpack_from("<I", data, at + length - 4)
        if again != length:
            raise InputError("a block's two lengths differ", hint="this is not a pcapng file")
        yield kind, data[at + 8 : at + length - 4]
        at += length


def _padded(data: bytes) -> bytes:
    # blocks and options begin at multiples of four bytes; an option's length leaves padding out
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _options(*pairs: tuple[int, bytes]) -> bytes:
    present = [_option(code, value) for code, value in pairs if value]
    return b"".join([*present, _option(_END, b"")]) if present else b""


def _block(kind: int, body: bytes) -> bytes:
    # the length stands at both ends, so that a reader can go backwards
    total = 12 + len(body)
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def _section(comment: str) -> bytes:
    # version 1.0; -1: the section's length is not given, it ends with the file
    fixed = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1)
    options = _options((_COMMENT, comment.encode()), (_SHB_USER_APPLICATION, b"lab"))
    return _block(_SECTION, fixed + options)


def _interface(place: Interface) -> bytes:
    fixed = struct.pack("<HHI", place.link_type, 0, _UNLIMITED)
    options = _options(
        (_IF_NAME, place.name.encode()),
        (_IF_DESCRIPTION, place.description.encode()),
        (_IF_TIME_RESOLUTION, _NANOSECONDS),
    )
    return _block(_INTERFACE, fixed + options)


def _packet(packet: Packet) -> bytes:
    high, low = packet.time_ns >> 32, packet.time_ns & 0xFFFFFFFF
    length = max(packet.length, len(packet.data))
    fixed = struct.pack("<IIIII", packet.interface, high, low, len(packet.data), length)
    flags = struct.pack("<I", packet.direction) if packet.direction else b""
    options = _options((_COMMENT, packet.comment.encode()), (_EPB_FLAGS, flags))
    return _block(_PACKET, fixed + _padded(packet.data) + options)
