"""BPF maps: owners of one file descriptor each, keys and values as bytes.

Values of per-CPU maps come and go as one value per possible CPU, each rounded up to 8 bytes as the
kernel wants them; `lookup_percpu` and `update_percpu` hide that. Needs CAP_BPF (root).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.errors import KernelError
from lab.kernel import libbpf
from lab.kernel.libbpf import check, lib

_ENOTSUPP = 524  # the kernel's own, not in errno.h
_NOEXIST = 1  # BPF_NOEXIST
_BATCH = 1024
_NO_BATCH = frozenset({errno.EINVAL, errno.EOPNOTSUPP, _ENOTSUPP, errno.ENOSYS})


class MapType(IntEnum):
    """``enum bpf_map_type``, the ones a datapath uses."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27


PERCPU_TYPES = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What makes two maps interchangeable; sizes in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@cache
def possible_cpus() -> int:
    """Return the number of possible CPUs, which per-CPU values are dimensioned for."""
    return check(lib().libbpf_num_possible_cpus(), "counting the possible CPUs")


class Owned:
    """Owner of one file descriptor of the kernel; closed once, by `close` or leaving ``with``."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close the descriptor; doing so twice is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def pin(self, path: Path | str) -> None:
        """Put the object into a bpffs under ``path``, replacing atomically what has the name.

        Raises:
            KernelError: ``path`` is in no bpffs, or its folder does not exist.
        """
        final = os.fspath(path)
        # pinning refuses a name that exists, renaming replaces it: nobody meets a gap
        staged = f"{final}_next_{os.getpid()}"  # a bpffs allows no dots
        code = lib().bpf_obj_pin(self.fd, staged.encode())
        check(code, f"pinning {final}", hint="mount a bpffs there: mount -t bpf bpf FOLDER")
        try:
            Path(staged).replace(final)
        except OSError as error:
            Path(staged).unlink(missing_ok=True)
            raise libbpf.failure(-(error.errno or 0), f"pinning {final}") from error


def get_pinned(path: Path | str) -> int | None:
    """Return a new descriptor of the object pinned at ``path``, or None if nothing is there.

    Raises:
        KernelError: there is something, but it is no BPF object or access is denied.
    """
    code = lib().bpf_obj_get(os.fspath(path).encode())
    if code == -errno.ENOENT:
        # that is an answer, not a failure: libbpf's words must not appear in a later error
        libbpf.said()
        return None
    return check(code, f"opening the pin {path}")


class BpfMap(Owned):
    """One map; see `Owned` for its lifetime.

    Attributes:
        name: the name it was declared with (the kernel keeps only 15 bytes of it).
        id: the kernel's number of it.
        spec: type and sizes.
    """

    __slots__ = ("id", "name", "spec")

    def __init__(self, fd: int, *, name: str = "") -> None:
        super().__init__(fd)
        info = libbpf.MapInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        try:
            check(lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), size), f"map {name}")
        except KernelError:
            self.close()
            raise
        self.id = int(info.id)
        self.name = name or info.name.decode()
        self.spec = MapSpec(
            info.type, info.key_size, info.value_size, info.max_entries, info.map_flags
        )

    @classmethod
    def create(cls, name: str, spec: MapSpec, *, inner: BpfMap | None = None) -> BpfMap:
        """Create a map; ``inner`` is a template for maps of maps.

        Raises:
            KernelError: the kernel refused the combination, or memory is short.
        """
        options = libbpf.MapCreateOpts(
            map_flags=spec.flags, inner_map_fd=inner.fd if inner is not None else 0
        )
        fd = lib().bpf_map_create(
            spec.type,
            # the kernel refuses longer names (BPF_OBJ_NAME_LEN is 16 with the end mark)
            name.encode()[:15],
            spec.key_size,
            spec.value_size,
            spec.max_entries,
            ctypes.byref(options),
        )
        return cls(check(fd, f"creating map {name}"), name=name)

    @classmethod
    def from_pin(cls, path: Path | str) -> BpfMap:
        """Open the map pinned at ``path``; its name is the file's.

        Raises:
            KernelError: nothing is pinned there.
        """
        fd = get_pinned(path)
        if fd is None:
            raise libbpf.failure(-errno.ENOENT, f"opening the map {path}")
        return cls(fd, name=Path(path).name)

    @classmethod
    def from_id(cls, number: int) -> BpfMap:
        """Open the map with the kernel's id ``number``.

        Raises:
            KernelError: there is none.
        """
        return cls(check(lib().bpf_map_get_fd_by_id(number), f"opening map id {number}"))

    @property
    def is_percpu(self) -> bool:
        """Whether each CPU has its own value under a key."""
        return self.spec.type in PERCPU_TYPES

    @property
    def _value_bytes(self) -> int:
        """Bytes of a value as system calls transfer it."""
        if self.is_percpu:
            return (self.spec.value_size + 7) // 8 * 8 * possible_cpus()
        return self.spec.value_size

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.spec.key_size:
            raise KernelError(
                f"map {self.name}: a key has {self.spec.key_size} bytes, got {len(key)}",
                hint="build keys with lab.layouts",
            )
        return key

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value under ``key`` as the kernel hands it over, or None.

        Raises:
            KernelError: the map cannot be looked up (program arrays) or the key has a wrong size.
        """
        value = ctypes.create_string_buffer(max(self._value_bytes, 4))
        code = lib().bpf_map_lookup_elem(self.fd, self._key(key), value)
        if code == -errno.ENOENT:
            return None
        check(code, f"looking up in map {self.name}")
        return value.raw[: self._value_bytes]

    def split_percpu(self, value: bytes) -> tuple[bytes, ...]:
        """Cut a transferred per-CPU value into one value for each possible CPU."""
        step = (self.spec.value_size + 7) // 8 * 8
        size = self.spec.value_size
        return tuple(value[at : at + size] for at in range(0, len(value), step))

    def lookup_percpu(self, key: bytes) -> tuple[bytes, ...] | None:
        """Return the value of each possible CPU under ``key``, or None."""
        value = self.lookup(key)
        return None if value is None else self.split_percpu(value)

    def update(self, key: bytes, value: bytes, *, flags: int = 0) -> None:
        """Set the value under ``key``; a per-CPU map gets the same value on every CPU.

        Args:
            key: ``key_size`` bytes.
            value: ``value_size`` bytes.
            flags: 0 any, 1 only new, 2 only existing.

        Raises:
            KernelError: wrong sizes, map full, or the flag's condition does not hold.
        """
        if len(value) != self.spec.value_size:
            raise KernelError(
                f"map {self.name}: a value has {self.spec.value_size} bytes, got {len(value)}",
                hint="build values with lab.layouts",
            )
        if self.is_percpu:
            value = value.ljust((len(value) + 7) // 8 * 8, b"\0") * possible_cpus()
        code = lib().bpf_map_update_elem(self.fd, self._key(key), value, flags)
        check(code, f"updating map {self.name}")

    def add(self, key: bytes, value: bytes) -> bool:
        """Set the value under ``key`` if there is none; return whether that was so.

        Raises:
            KernelError: wrong sizes, or the map is full.
        """
        code = lib().bpf_map_update_elem(self.fd, self._key(key), value, _NOEXIST)
        if code == -errno.EEXIST:
            return False
        check(code, f"adding to map {self.name}")
        return True

    def take(self, key: bytes) -> bytes | None:
        """Remove the entry under ``key`` and return its last value, or None; in one step.

        Raises:
            KernelError: this type of map cannot (hashes can since Linux 5.14).
        """
        value = ctypes.create_string_buffer(max(self._value_bytes, 4))
        code = lib().bpf_map_lookup_and_delete_elem(self.fd, self._key(key), value)
        if code == -errno.ENOENT:
            return None
        check(code, f"taking from map {self.name}")
        return value.raw[: self._value_bytes]

    def update_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Set many entries; one system call for the lot where the kernel can.

        Raises:
            KernelError: as `update`; entries before the failing one are set.
        """
        if len(items) > 1 and not self.is_percpu:
            keys = b"".join(self._key(key) for key, _ in items)
            values = b"".join(value for _, value in items)
            count = ctypes.c_uint32(len(items))
            code = -errno.EINVAL
            if len(values) == len(items) * self.spec.value_size:
                options = libbpf.BatchOpts()
                code = lib().bpf_map_update_batch(self.fd, keys, values, count, options)
            if code == 0:
                return
            if -code not in _NO_BATCH:
                check(code, f"updating {len(items)} entries of map {self.name}")
        # without batches, or with a wrong size, one by one: that names the entry at fault
        for key, value in items:
            self.update(key, value)

    def delete(self, key: bytes) -> bool:
        """Remove the entry under ``key``; return whether there was one.

        Raises:
            KernelError: the map has no deletable entries (arrays).
        """
        code = lib().bpf_map_delete_elem(self.fd, self._key(key))
        if code == -errno.ENOENT:
            return False
        check(code, f"deleting from map {self.name}")
        return True

    def keys(self) -> Iterator[bytes]:
        """Iterate over the keys; entries that come and go meanwhile may be missed or repeated."""
        following = ctypes.create_string_buffer(self.spec.key_size)
        current: bytes | None = None
        while lib().bpf_map_get_next_key(self.fd, current, following) == 0:
            current = following.raw
            yield current

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return all entries; read in batches where the kernel can.

        Raises:
            KernelError: the map cannot be read.
        """
        found = self._items_in_batches(_BATCH)
        if found is None:
            pairs = ((key, self.lookup(key)) for key in self.keys())
            found = [(key, value) for key, value in pairs if value is not None]
        return found

    def _items_in_batches(self, room: int) -> list[tuple[bytes, bytes]] | None:
        """All entries, or None if the kernel has no batches for this type of map."""
        key_size, value_size = self.spec.key_size, self._value_bytes
        keys = ctypes.create_string_buffer(room * key_size)
        values = ctypes.create_string_buffer(room * value_size)
        # the kernel keeps a bucket's number (hash) or a whole key (array, trie) here
        cursor = ctypes.create_string_buffer(max(key_size, 8))
        start = None
        found: list[tuple[bytes, bytes]] = []
        while True:
            count = ctypes.c_uint32(room)
            options = libbpf.BatchOpts()
            code = lib().bpf_map_lookup_batch(self.fd, start, cursor, keys, values, count, options)
            if code == -errno.ENOSPC:  # one hash bucket holds more than there is room for
                return self._items_in_batches(room * 4)
            if code not in (0, -errno.ENOENT):
                if -code in _NO_BATCH:
                    return None
                check(code, f"reading map {self.name}")
            raw_keys = ctypes.string_at(keys, count.value * key_size)
            raw_values = ctypes.string_at(values, count.value * value_size)
            found += [
                (
                    raw_keys[n * key_size : (n + 1) * key_size],
                    raw_values[n * value_size : (n + 1) * value_size],
                )
                for n in range(count.value)
            ]
            if code == -errno.ENOENT:
                return found
            start = cursor

    def clear(self) -> int:
        """Delete every entry of a hash or trie; return how many there were."""
        # all keys first: the walk starts over when the key it stands on is deleted
        return sum(self.delete(key) for key in list(self.keys()))

    def freeze(self) -> None:
        """Forbid changes from user space for good.

        Raises:
            KernelError: the map is frozen already or has writers.
        """
        check(lib().bpf_map_freeze(self.fd), f"freezing map {self.name}")
