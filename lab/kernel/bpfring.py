"""Read what programs write into perf rings and ring buffers, with a count of what was lost.

Both readers have an epoll descriptor (`fileno`) that is readable when there is something, and
`read`, which takes all there is. Records lost because a ring was full are counted, never silent.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lab.kernel import libbpf
from lab.kernel.bpfmap import BpfMap, Owned
from lab.kernel.libbpf import check, check_pointer, lib

DEFAULT_PAGES = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """One record: the CPU it was written on (-1 where a ring does not tell) and its bytes."""

    cpu: int
    data: bytes


class _Ring:
    """What both kinds of reader have in common."""

    _free: str
    _epoll: str
    _poll: str
    _consume: str

    def __init__(self) -> None:
        self._handle: int | None = None
        self._samples: list[Sample] = []
        self.lost = 0

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when records wait; it belongs to the ring."""
        return int(getattr(lib(), self._epoll)(self._handle))

    def read(self, *, wait_ms: int = 0) -> tuple[Sample, ...]:
        """Return the records waiting, oldest first on each CPU.

        Args:
            wait_ms: how long to wait for the first record if there is none; -1 for ever.

        Raises:
            KernelError: the ring is closed or broken.
        """
        check(getattr(lib(), self._consume)(self._handle), "reading a ring")
        if not self._samples and wait_ms:
            check(getattr(lib(), self._poll)(self._handle, wait_ms), "waiting for a ring")
        found, self._samples = tuple(self._samples), []
        return found

    def close(self) -> None:
        """Stop reading; doing so twice is fine."""
        handle, self._handle = self._handle, None
        if handle:
            getattr(lib(), self._free)(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class PerfReader(_Ring):
    """Reader of a ``PERF_EVENT_ARRAY``: one ring per CPU; becomes the reader of the map.

    Args:
        bpf_map: may be closed afterwards; the reader keeps the file open itself, because the kernel
            takes the rings out of the map when the file they were put in through is closed.
        pages: of each CPU's ring, a power of two.

    Attributes:
        lost: records that found no room since the reader was opened.

    Raises:
        KernelError: perf events are not permitted here, or locked memory is short.
    """

    _free = "perf_buffer__free"
    _epoll = "perf_buffer__epoll_fd"
    _poll = "perf_buffer__poll"
    _consume = "perf_buffer__consume"

    def __init__(self, bpf_map: BpfMap, *, pages: int = DEFAULT_PAGES) -> None:
        super().__init__()
        # kept as attributes: ctypes' callbacks must live as long as libbpf may call them
        self._on_sample = libbpf.SAMPLE_FN(self._keep)
        self._on_lost = libbpf.LOST_FN(self._count_lost)
        handle = lib().perf_buffer__new(
            bpf_map.fd, pages, self._on_sample, self._on_lost, None, None
        )
        self._handle = check_pointer(handle, f"opening the rings of {bpf_map.name}")
        self._file = Owned(os.dup(bpf_map.fd))

    def close(self) -> None:
        """Stop reading and take the rings out of the map; doing so twice is fine."""
        super().close()
        self._file.close()

    def _keep(self, _: int, cpu: int, data: int, size: int) -> None:
        self._samples.append(Sample(cpu, ctypes.string_at(data, size)))

    def _count_lost(self, _: int, __: int, count: int) -> None:
        self.lost += count


class RingReader(_Ring):
    """Reader of a ``RINGBUF`` map.

    Writers see a full ring and count their losses themselves; ``lost`` stays 0 here.

    Raises:
        KernelError: not a ring buffer.
    """

    _free = "ring_buffer__free"
    _epoll = "ring_buffer__epoll_fd"
    _poll = "ring_buffer__poll"
    _consume = "ring_buffer__consume"

    def __init__(self, bpf_map: BpfMap) -> None:
        super().__init__()
        self._on_record: Callable[..., int] = libbpf.RING_FN(self._keep)
        handle = lib().ring_buffer__new(bpf_map.fd, self._on_record, None, None)
        self._handle = check_pointer(handle, f"opening the ring {bpf_map.name}")

    def _keep(self, _: int, data: int, size: int) -> int:
        self._samples.append(Sample(-1, ctypes.string_at(data, size)))
        return 0
