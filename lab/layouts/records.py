"""Structures shared with C, described as data: names, places, byte order, and a codec.

A structure is a frozen dataclass whose fields are made by the functions below (`u32`, `be16`,
`ipv4` ...), in the order and under the names of its C twin; padding is a field too. Integers are
little endian unless their name says otherwise. ``tests/unit/test_alignchecker.py`` compares every
structure with what clang made of the C header.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, ClassVar, Self, cast

_NO_ADDRESS = IPv4Address(0)
_NO_MAC = "00:00:00:00:00:00"
_WIRE = "wire"


@dataclass(frozen=True, slots=True)
class _Wire:
    """How one field looks in memory: a ``struct`` code and what turns values into it and back."""

    code: str
    encode: Callable[[Any], Any] = lambda value: value
    decode: Callable[[Any], Any] = lambda value: value
    is_padding: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field lies in its structure, in bytes; padding carries nothing."""

    name: str
    offset: int
    size: int
    is_padding: bool = False


def _field(wire: _Wire, default: Any, *, show: bool = True) -> Any:  # noqa: ANN401 - a field
    return dataclasses.field(default=default, metadata={_WIRE: wire}, repr=show)


def u8(default: int = 0) -> int:
    """Field of one unsigned byte."""
    return cast(int, _field(_Wire("B"), default))


def s8(default: int = 0) -> int:
    """Field of one signed byte."""
    return cast(int, _field(_Wire("b"), default))


def u16(default: int = 0) -> int:
    """Field of two bytes."""
    return cast(int, _field(_Wire("H"), default))


def u32(default: int = 0) -> int:
    """Field of four bytes."""
    return cast(int, _field(_Wire("I"), default))


def s32(default: int = 0) -> int:
    """Field of four signed bytes."""
    return cast(int, _field(_Wire("i"), default))


def u64(default: int = 0) -> int:
    """Field of eight bytes."""
    return cast(int, _field(_Wire("Q"), default))


def be16(default: int = 0) -> int:
    """Field of two bytes in network order: a port, or an index that Cilium keeps that way."""
    wire = _Wire("2s", lambda v: v.to_bytes(2, "big"), lambda raw: int.from_bytes(raw, "big"))
    return cast(int, _field(wire, default))


def ipv4() -> IPv4Address:
    """Field of an IPv4 address."""
    return cast(IPv4Address, _field(_Wire("4s", lambda v: v.packed, IPv4Address), _NO_ADDRESS))


def mac_address(size: int = 8) -> str:
    """Field of a MAC address in text, in 6 bytes, or 8 with padding behind it."""
    wire = _Wire(
        f"{size}s",
        lambda v: bytes.fromhex(v.replace(":", "")).ljust(size, b"\0"),
        lambda raw: raw[:6].hex(":"),
    )
    return cast(str, _field(wire, _NO_MAC))


def raw(size: int) -> bytes:
    """Field of ``size`` bytes as they are."""
    return cast(bytes, _field(_Wire(f"{size}s"), bytes(size)))


def padding(size: int) -> bytes:
    """Field of ``size`` bytes that carry nothing; zero, since keys are compared byte for byte."""
    return cast(bytes, _field(_Wire(f"{size}s", is_padding=True), bytes(size), show=False))


class Record:
    """Base of the shared structures: packs to and unpacks from their memory.

    Attributes:
        C_NAME: name of the C struct.
    """

    __slots__ = ()
    C_NAME: ClassVar[str]

    def pack(self) -> bytes:
        """Return the structure's memory, exactly `size` bytes.

        Raises:
            struct.error: a value does not fit its field.
        """
        codec, fields = _layout(type(self))
        return codec.pack(*(wire.encode(getattr(self, name)) for name, wire in fields))

    @classmethod
    def unpack(cls, memory: bytes) -> Self:
        """Read the structure from the beginning of ``memory``.

        Raises:
            struct.error: ``memory`` is shorter than the structure.
        """
        codec, fields = _layout(cls)
        values = codec.unpack_from(memory)
        return cls(
            **{name: wire.decode(value) for (name, wire), value in zip(fields, values, strict=True)}
        )

    @classmethod
    def codec(cls) -> struct.Struct:
        """Return what packs the fields as they lie in memory, for those who do so in thousands.

        Padding is a field of it, and what is in network order is bytes to it.
        """
        return _layout(cls)[0]

    @classmethod
    def size(cls) -> int:
        """Return the size in bytes."""
        return _layout(cls)[0].size

    @classmethod
    def places(cls) -> tuple[Place, ...]:
        """Return where each field lies, in order."""
        found, offset = [], 0
        for name, wire in _layout(cls)[1]:
            size = struct.calcsize("<" + wire.code)
            found.append(Place(name, offset, size, wire.is_padding))
            offset += size
        return tuple(found)


_Layout = tuple[struct.Struct, tuple[tuple[str, _Wire], ...]]
_layouts: dict[type[Record], _Layout] = {}


def _layout(kind: type[Record]) -> _Layout:
    """Codec and fields of a structure, worked out once."""
    if kind not in _layouts:
        own = dataclasses.fields(cast(Any, kind))
        fields = tuple((field.name, field.metadata[_WIRE]) for field in own)
        # "<" aligns nothing: every gap of the C structure is a padding field, and the alignment
        # test finds one that is missing
        codec = struct.Struct("<" + "".join(wire.code for _, wire in fields))
        _layouts[kind] = (codec, fields)
    return _layouts[kind]
