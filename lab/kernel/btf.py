"""BPF Type Format and ELF, read-only: what a compiled BPF object says about itself.

Sources: the kernel's Documentation/bpf/btf.rst and elf(5). Pure Python and without privileges, so
that a plan can be printed, and a layout compared, where nothing can be loaded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from lab.errors import BuildError

(
    _INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT,
    _FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64,
) = range(1, 20)  # fmt: skip
_TRAILER_FIXED = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_TRAILER_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_ALIASES = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
_POINTER_BYTES = 8
_STT_OBJECT = 1
_STT_FUNC = 2
_INSN_BYTES = 8


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a C struct: place and size in bits, as compiled."""

    name: str
    bit_offset: int
    bit_size: int


@dataclass(frozen=True, slots=True)
class CStruct:
    """A C struct or union as compiled; anonymous members appear by their own members."""

    name: str
    size: int
    members: tuple[Member, ...]


class Btf:
    """The types of one object.

    Args:
        data: the content of a ``.BTF`` section or of ``/sys/kernel/btf/vmlinux``, little endian.

    Raises:
        BuildError: ``data`` is no BTF.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < 24 or data[:2] != b"\x9f\xeb":
            raise BuildError("the object carries no BTF", hint="compile it with clang -g")
        _, _, _, header, type_at, type_bytes, string_at, string_bytes = struct.unpack_from(
            "<HBBIIIII", data
        )
        self._data = data
        self._strings = data[header + string_at : header + string_at + string_bytes]
        self._offsets = [0]  # byte offset of type number n; 0 is void
        at, end = header + type_at, header + type_at + type_bytes
        unpack = struct.Struct("<4xI").unpack_from
        while at < end:
            # types have no length of their own: a reader must know every kind's trailer to find the
            # next
            self._offsets.append(at)
            (info,) = unpack(data, at)
            kind = (info >> 24) & 0x1F
            each = _TRAILER_EACH.get(kind, 0)
            at += 12 + _TRAILER_FIXED.get(kind, 0) + each * (info & 0xFFFF)

    def _head(self, number: int) -> tuple[int, int, int, bool, int]:
        """Name offset, kind, member count, flag, size-or-type of one type."""
        if number == 0:
            return 0, 0, 0, False, 0
        name, info, size_or_type = struct.unpack_from("<III", self._data, self._offsets[number])
        return name, (info >> 24) & 0x1F, info & 0xFFFF, bool(info >> 31), size_or_type

    def text(self, offset: int) -> str:
        """Return the string at an offset of the string section."""
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _resolve(self, number: int) -> int:
        """Follow typedefs and qualifiers to the type itself."""
        while True:
            _, kind, _, _, target = self._head(number)
            if kind not in _ALIASES:
                return number
            number = target

    def _trailer(self, number: int, shape: str, count: int) -> list[tuple[int, ...]]:
        layout = struct.Struct(shape)
        start = self._offsets[number] + 12
        return [layout.unpack_from(self._data, start + n * layout.size) for n in range(count)]

    def size_of(self, number: int) -> int:
        """Return the size in bytes of type ``number``; 0 for functions and void."""
        number = self._resolve(number)
        _, kind, _, _, size = self._head(number)
        if kind == _PTR:
            return _POINTER_BYTES
        if kind == _ARRAY:
            element, _, count = self._trailer(number, "<III", 1)[0]
            return self.size_of(element) * count
        if kind in (_INT, _STRUCT, _UNION, _ENUM, _ENUM64, _FLOAT, _DATASEC):
            return size
        return 0

    @cached_property
    def decl_tags(self) -> tuple[tuple[str, str], ...]:
        """``(function or variable, tag)`` of every ``btf_decl_tag`` on a whole declaration."""
        found = []
        for number in range(1, len(self._offsets)):
            name, kind, _, _, target = self._head(number)
            # -1 tags the declaration itself; other values are an argument's or a member's index
            if kind == _DECL_TAG and self._trailer(number, "<i", 1)[0][0] == -1:
                found.append((self.text(self._head(target)[0]), self.text(name)))
        return tuple(found)

    @cached_property
    def _named(self) -> dict[tuple[int, str], int]:
        """Type number by (kind, name), for structs, unions and enums; the first one wins."""
        table: dict[tuple[int, str], int] = {}
        for number in range(1, len(self._offsets)):
            name, kind, _, _, _ = self._head(number)
            if name and kind in (_STRUCT, _UNION, _ENUM, _ENUM64, _TYPEDEF):
                table.setdefault((kind, self.text(name)), number)
        return table

    def struct(self, name: str) -> CStruct:
        """Return the struct or union ``name``.

        Raises:
            KeyError: the object has no such type (a type no program uses is not in its BTF).
        """
        for kind in (_STRUCT, _UNION):
            if (number := self._named.get((kind, name))) is not None:
                return CStruct(name, self._head(number)[4], tuple(self._members(number, 0)))
        raise KeyError(name)

    def _members(self, number: int, base: int) -> list[Member]:
        _, _, count, bitfields, _ = self._head(number)
        members: list[Member] = []
        for name, kind, where in self._trailer(number, "<III", count):
            # with the kind flag set, the offset carries a bit field's width in its upper eight bits
            bits, offset = (where >> 24, where & 0xFFFFFF) if bitfields else (0, where)
            bits = bits or 8 * self.size_of(kind)
            if name:
                members.append(Member(self.text(name), base + offset, bits))
            else:
                # an anonymous struct or union: C names its members as if they were the outer type's
                members += self._members(self._resolve(kind), base + offset)
        return members

    @cached_property
    def enums(self) -> dict[str, dict[str, int]]:
        """Constants of every enum by enum name; those of all unnamed enums under ``""``."""
        found: dict[str, dict[str, int]] = {}
        for number in range(1, len(self._offsets)):
            name, kind, count, _, _ = self._head(number)
            table = found.setdefault(self.text(name), {}) if kind in (_ENUM, _ENUM64) else {}
            if kind == _ENUM:
                # signed always: clang 14 does not mark enums that have negative constants
                for text, value in self._trailer(number, "<Ii", count):
                    table[self.text(text)] = value
            elif kind == _ENUM64:
                for text, low, high in self._trailer(number, "<III", count):
                    table[self.text(text)] = low | high << 32
        return found


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable or function of an object: section, place in it and size, in bytes."""

    name: str
    section: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of C: file name without folders, number from 1, and its text."""

    file: str
    number: int
    text: str


class Elf:
    """The sections and variables of a compiled BPF object (64 bit, little endian).

    Args:
        data: the whole file.

    Raises:
        BuildError: ``data`` is not such a file.
    """

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise BuildError(
                "not a 64-bit little-endian ELF object", hint="compile for -target bpf"
            )
        self.data = data
        (at,) = struct.unpack_from("<Q", data, 0x28)
        size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        self._headers = [
            struct.unpack_from("<IIQQQQIIQQ", data, at + n * size) for n in range(count)
        ]
        table = self._headers[names]
        self._names = [self._text(table[4] + header[0]) for header in self._headers]

    def _text(self, at: int) -> str:
        return self.data[at : self.data.index(b"\0", at)].decode()

    def place(self, section: str) -> tuple[int, int]:
        """Return file offset and size in bytes of a section; ``(0, 0)`` if there is none."""
        if section not in self._names:
            return 0, 0
        header = self._headers[self._names.index(section)]
        return header[4], header[5]

    def section(self, name: str) -> bytes:
        """Return the content of a section; empty if there is none."""
        at, size = self.place(name)
        return self.data[at : at + size]

    @cached_property
    def variables(self) -> tuple[Symbol, ...]:
        """Every data object of the symbol table, in its order."""
        return self._symbols(_STT_OBJECT)

    @cached_property
    def functions(self) -> tuple[Symbol, ...]:
        """Every function of the symbol table, in its order."""
        return self._symbols(_STT_FUNC)

    def _symbols(self, kind: int) -> tuple[Symbol, ...]:
        if ".symtab" not in self._names:
            return ()
        header = self._headers[self._names.index(".symtab")]
        # sh_link of a symbol table is the number of its string table (elf(5))
        texts = self._headers[header[6]][4]
        found = []
        for at in range(header[4], header[4] + header[5], 24):
            name, info, _, where, value, size = struct.unpack_from("<IBBHQQ", self.data, at)
            if info & 0xF == kind and where < len(self._names):
                found.append(Symbol(self._text(texts + name), self._names[where], value, size))
        return tuple(found)

    def source_line(self, function: str, instruction: int) -> SourceLine | None:
        """Return the C line that an instruction of a function was made from, or None.

        Args:
            function: a program; what it calls is not counted.
            instruction: from 0, as the verifier counts them.
        """
        place = next((f for f in self.functions if f.name == function), None)
        if place is None or not 0 <= instruction * _INSN_BYTES < place.size:
            return None
        wanted = place.offset + instruction * _INSN_BYTES
        found = None
        for offset, file, text, where in self._line_records(place.section):
            if offset <= wanted and where >> 10:  # line 0: made by the compiler alone
                found = (file, text, where)
        if found is None:
            return None
        file, text, where = found
        return SourceLine(Path(self.btf.text(file)).name, where >> 10, self.btf.text(text).strip())

    def _line_records(self, section: str) -> list[tuple[int, ...]]:
        """Line information of a section (``.BTF.ext``): byte offset, file, text, line, column."""
        data = self.section(".BTF.ext")
        if len(data) < 24:
            return []
        header, at, size = struct.unpack_from("<4xI8xII", data)
        at += header
        end = at + size
        (record,) = struct.unpack_from("<I", data, at)
        at += 4
        while at < end:
            name, count = struct.unpack_from("<II", data, at)
            at += 8
            if self.btf.text(name) == section:
                return [struct.unpack_from("<IIII", data, at + n * record) for n in range(count)]
            at += count * record
        return []

    @cached_property
    def btf(self) -> Btf:
        """The object's types.

        Raises:
            BuildError: it was compiled without ``-g``.
        """
        return Btf(self.section(".BTF"))


@lru_cache(maxsize=64)
def _read(path: str, _stamp: tuple[int, int]) -> Elf:
    return Elf(Path(path).read_bytes())


def read_object(path: Path | str) -> Elf:
    """Return the parsed object file; parsed once per content (time stamp and size) and process.

    Raises:
        BuildError: the file is no BPF object, or not there.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        raise BuildError(
            f"no BPF object at {path}: {error.strerror}", hint="build it first"
        ) from error
    return _read(str(path), (status.st_mtime_ns, status.st_size))
