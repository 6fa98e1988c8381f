"""Records that programs leave in plain memory, a lane for each processor, read without a call.

The memory is two arrays that both sides see (``BPF_F_MMAPABLE``): where each processor is, and the
records. A writer takes a number, fills the record in that place, and completes it by storing the
number plus one in the record's first word; the reader takes complete records in order and says how
far it got. A full lane refuses records and counts them; nothing is overwritten.

Nothing here is pinned: the memory goes with the programs that write and the process that reads.
"""

from __future__ import annotations

import ctypes
import mmap
from contextlib import ExitStack
from typing import Self

from lab.errors import KernelError
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType, possible_cpus

_MMAPABLE = 1 << 10
_FEWEST_RECORDS = 256


class _Lane(ctypes.Structure):
    """``struct lane`` of bpf/probes/record.h: a cache line of the writer's, one of the reader's."""

    _fields_ = (
        ("begun", ctypes.c_uint64),
        ("lost", ctypes.c_uint64),
        ("writer", ctypes.c_uint64 * 6),
        ("taken", ctypes.c_uint64),
        ("reader", ctypes.c_uint64 * 7),
    )


class Lanes:
    """The two maps of a recording, to be given to the programs' loader, and their reader.

    Args:
        record_bytes: length of a record, a multiple of 8; its first word is its number.
        most_bytes: of memory for all lanes together, if that leaves each a few records.

    Raises:
        KernelError: memory is short, or the kernel (before 5.5) cannot share arrays.

    Attributes:
        maps: what the programs call ``trace_lanes`` and ``trace_records``.
        records: places in each lane; the programs' constant ``lane_records``.
    """

    def __init__(self, record_bytes: int, most_bytes: int) -> None:
        self.record_bytes = record_bytes
        cpus = possible_cpus()
        fitting = max(1, most_bytes // (record_bytes * cpus))
        # a power of two: the writer finds a number's place with a mask
        self.records = max(_FEWEST_RECORDS, 1 << fitting.bit_length() - 1)
        with ExitStack() as stack:
            self._map = {
                name: stack.enter_context(
                    BpfMap.create(name, MapSpec(MapType.ARRAY, 4, size, count, _MMAPABLE))
                )
                for name, size, count in (
                    ("trace_lanes", ctypes.sizeof(_Lane), cpus),
                    ("trace_records", record_bytes, cpus * self.records),
                )
            }
            lanes = _shared(self._map["trace_lanes"], mmap.PROT_READ | mmap.PROT_WRITE)
            self._data = _shared(self._map["trace_records"], mmap.PROT_READ)
            self._lanes = (_Lane * cpus).from_buffer(lanes)
            for lane in self._lanes:
                lane.begun = lane.taken = self.records
            self._words = memoryview(self._data).cast("Q")
            self._owned = stack.pop_all()

    @property
    def maps(self) -> dict[str, BpfMap]:
        """Both maps by the names that the programs know them by."""
        return dict(self._map)

    def take(self) -> list[bytes]:
        """Return the complete records in stretches, each lane's in order, and free their places."""
        taken: list[bytes] = []
        for cpu, lane in enumerate(self._lanes):
            at, end = lane.taken, lane.begun
            while at < end:
                place = at % self.records
                count = min(end - at, self.records - place)
                complete = self._complete(cpu * self.records + place, at, count)
                start = (cpu * self.records + place) * self.record_bytes
                if complete:
                    taken.append(self._data[start : start + complete * self.record_bytes])
                at += complete
                if complete < count:
                    break  # somebody is still writing; what is behind it has to wait
            # told once for the lot: the writer gets the places back from here
            lane.taken = at
        return taken

    def _complete(self, place: int, number: int, count: int) -> int:
        """Return how many records from ``place`` on, ``number`` being the first, are complete."""
        step = self.record_bytes // 8
        words = self._words[place * step : (place + count) * step : step].tolist()
        if words == list(range(number + 1, number + count + 1)):
            return count
        return next(n for n, word in enumerate(words) if word != number + n + 1)

    def lost(self) -> int:
        """Return how many records found their lane full."""
        return sum(lane.lost for lane in self._lanes)

    def close(self) -> None:
        """Unmap and let go of the maps; idempotent."""
        if self._data.closed:
            return
        self._words.release()
        self._data.close()
        # the lanes' view keeps its mapping; both go together
        del self._lanes
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _shared(array: BpfMap, protection: int) -> mmap.mmap:
    size = array.spec.value_size * array.spec.max_entries
    length = (size + mmap.PAGESIZE - 1) & -mmap.PAGESIZE
    try:
        return mmap.mmap(array.fd, length, prot=protection)
    except (OSError, ValueError) as error:
        raise KernelError(
            f"mapping the array {array.name}: {error}", hint="is there memory left?"
        ) from error
