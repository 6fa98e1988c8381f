"""Typed views of a node's pinned maps: dataclasses in, dataclasses out.

A view opens the pin below a node's bpffs (which may be reached from outside the node through
``/proc/KEEPER/root``) and owns that one descriptor. Needs root.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from lab.errors import InputError, KernelError
from lab.kernel.bpfmap import BpfMap, MapType
from lab.layouts import core
from lab.layouts.attach import GLOBALS
from lab.layouts.maps import MapLayout, map_layout
from lab.layouts.records import Record

K = TypeVar("K", bound=Record)
V = TypeVar("V", bound=Record)

_UNREADABLE = frozenset({MapType.PERF_EVENT_ARRAY, MapType.RINGBUF})


class MapView(Generic[K, V]):
    """One map through its structures; use it in a ``with``, or `close` it.

    Values of per-CPU maps are added up over the CPUs.

    Attributes:
        map: the map in bytes.
        key, value: its structures.
    """

    def __init__(self, bpf_map: BpfMap, key: type[K], value: type[V]) -> None:
        self.map = bpf_map
        self.key = key
        self.value = value

    def _decode(self, raw: bytes) -> V:
        # the kernel gives one value for each possible CPU, one behind the other
        if not self.map.is_percpu:
            return self.value.unpack(raw)
        return _sum([self.value.unpack(one) for one in self.map.split_percpu(raw)])

    def lookup(self, key: K) -> V | None:
        """Return the value under ``key``, or None.

        Raises:
            KernelError: the map is gone or cannot be looked up.
        """
        raw = self.map.lookup(key.pack())
        return None if raw is None else self._decode(raw)

    def update(self, key: K, value: V) -> None:
        """Set the value under ``key``.

        Raises:
            KernelError: the map is full or gone.
        """
        self.map.update(key.pack(), value.pack())

    def delete(self, key: K) -> bool:
        """Remove ``key``; return whether it was there.

        Raises:
            KernelError: the map is gone or has fixed entries.
        """
        return self.map.delete(key.pack())

    def items(self) -> list[tuple[K, V]]:
        """Return all entries, in the kernel's order; of a per-CPU array those that are not zero.

        Raises:
            KernelError: the map is gone or cannot be read.
        """
        return [(self.key.unpack(key), self._decode(raw)) for key, raw in _present(self.map)]

    def close(self) -> None:
        """Close the descriptor; the map stays."""
        self.map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _sum(values: list[V]) -> V:
    """Add up structures of numbers field by field."""
    names = [field.name for field in dataclasses.fields(cast(Any, values[0]))]
    totals = {name: sum(getattr(value, name) for value in values) for name in names}
    return type(values[0])(**totals)


def open_view(bpffs: Path, name: str) -> MapView[Any, Any]:
    """Open the map pinned as ``name`` below a node's bpffs with its own structures.

    Raises:
        InputError: the lab knows no layout for a map of this name.
        KernelError: it is not pinned there.
    """
    layout = map_layout(name)
    if layout is None or layout.key is None or layout.value is None:
        raise InputError(f"no layout is known for the map {name!r}", hint="see `lab bpf maps`")
    bpf_map = BpfMap.from_pin(bpffs / GLOBALS / name)
    # bytes of another layout would be read as nonsense, not refused: sizes are what can be compared
    _check_sizes(bpf_map, layout)
    return MapView(bpf_map, layout.key, layout.value)


def _check_sizes(bpf_map: BpfMap, layout: MapLayout) -> None:
    wanted = (layout.key.size() if layout.key else 0, layout.value.size() if layout.value else 0)
    found = (bpf_map.spec.key_size, bpf_map.spec.value_size)
    if found != wanted:
        # the view that would own it is never made
        bpf_map.close()
        raise KernelError(
            f"map {bpf_map.name} has {found[0]}-byte keys and {found[1]}-byte values, "
            f"the lab expects {wanted[0]} and {wanted[1]}",
            hint="it was made by another version of the datapath: bring the lab up again",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedMap:
    """One pinned map of a node.

    Attributes:
        name: of the pin.
        id: the kernel's number.
        type: in words (``lru_hash``).
        key_bytes, value_bytes, max_entries: as created.
        entries: present now; None where the type has no entries to count.
        evicted: entries that made room for others, since the lab came up; None where nothing is
            ever evicted, or nobody counts it. While packets pass it may be some too few.
        unused: why nothing is in it; empty for maps in use.
    """

    name: str
    id: int
    type: str
    key_bytes: int
    value_bytes: int
    max_entries: int
    entries: int | None
    evicted: int | None = None
    unused: str = ""


def pinned_maps(bpffs: Path) -> tuple[PinnedMap, ...]:
    """Return every map pinned below a node's bpffs, by name.

    Raises:
        KernelError: the folder is gone or a pin cannot be opened.
    """
    folder = bpffs / GLOBALS
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise KernelError(f"{folder}: {error.strerror}", hint="is the lab still up?") from error
    return tuple(_describe(folder / name) for name in names)


def _describe(path: Path) -> PinnedMap:
    layout = map_layout(path.name)
    with BpfMap.from_pin(path) as bpf_map:
        spec = bpf_map.spec
        readable = spec.type not in _UNREADABLE
        # before the entries are counted: packets that pass in between must not look evicted
        kept = _kept(path) if path.name in core.LIVES else None
        entries = _count(bpf_map) if readable else None
        return PinnedMap(
            name=path.name,
            id=bpf_map.id,
            type=MapType(spec.type).name.lower(),
            key_bytes=spec.key_size,
            value_bytes=spec.value_size,
            max_entries=spec.max_entries,
            entries=entries,
            evicted=None if kept is None else max(kept - (entries or 0), 0),
            unused=layout.unused if layout else "",
        )


def _kept(path: Path) -> int:
    """Entries a table was given, less those the agent took out: how many would be there now."""
    with BpfMap.from_pin(path.parent / "cilium_runtime_config") as words:
        made, removed = (
            core.Word.unpack(words.lookup(core.Index(index=slot).pack()) or bytes(8)).value
            for slot in core.LIVES[path.name]
        )
    return made - removed


def _count(bpf_map: BpfMap) -> int:
    """Entries present; for program arrays the filled slots."""
    if bpf_map.spec.type == MapType.PROG_ARRAY:
        # a program array lists every slot as a key; only a look-up tells which hold a program
        return sum(bpf_map.lookup(key) is not None for key in bpf_map.keys())  # noqa: SIM118
    return len(_present(bpf_map))


def _present(bpf_map: BpfMap) -> list[tuple[bytes, bytes]]:
    entries = bpf_map.items()
    if bpf_map.spec.type != MapType.PERCPU_ARRAY:
        return entries
    # an array of counters has an entry for whatever was never counted, too
    nothing = bytes(len(entries[0][1])) if entries else b""
    return [entry for entry in entries if entry[1] != nothing]
