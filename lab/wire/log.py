"""The in-kernel segment log: what ``bpf/lessons/impair.c`` wrote down, decoded."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SEGMENT_BYTES = 256
HEAD_BYTES = 188
MAX_SEGMENTS = 16384
_FIXED = struct.Struct("<QQIIBBBB10I")


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketState:
    """The sending socket's own numbers at the moment it sent; counts are segments."""

    cwnd: int
    ssthresh: int
    packets_out: int
    retrans_out: int
    sacked_out: int
    lost_out: int
    srtt_us: int
    snd_una: int
    snd_nxt: int
    rcv_nxt: int

    @property
    def in_flight(self) -> int:
        """Segments the sender believes to be in the network."""
        return self.packets_out - self.sacked_out - self.lost_out + self.retrans_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One packet at one end, as the tc program saw it.

    Attributes:
        time_ns: monotonic clock.
        cookie: of the sending socket, 0 at the receiver.
        frame_bytes: length with the Ethernet header.
        ifindex: of the device.
        received: at the receiver's ingress rather than the sender's egress.
        fate: 0 delivered, 1 dropped, 2 delivered and copied, 3 a copy (``enum fate``).
        head: its first bytes.
        state: of the sending TCP socket, if there is one.
    """

    time_ns: int
    cookie: int
    frame_bytes: int
    ifindex: int
    received: bool
    fate: int
    head: bytes
    state: SocketState | None


def decode(raw: bytes) -> Observation:
    """Decode one ``struct segment`` of 256 bytes."""
    time_ns, cookie, size, ifindex, hook, fate, captured, has_socket, *state = _FIXED.unpack_from(
        raw
    )
    return Observation(
        time_ns=time_ns,
        cookie=cookie,
        frame_bytes=size,
        ifindex=ifindex,
        received=bool(hook),
        fate=fate,
        head=raw[_FIXED.size : _FIXED.size + captured],
        state=SocketState(**dict(zip(SocketState.__slots__, state, strict=True)))
        if has_socket
        else None,
    )


def read_log(map_fd: int, count: int) -> Iterator[Observation]:
    """Yield the first ``count`` observations of a ``segments`` map, in the kernel's order."""
    # the map was made with BPF_F_MMAPABLE: one mapping instead of a system call for each packet
    with mmap.mmap(map_fd, MAX_SEGMENTS * SEGMENT_BYTES, prot=mmap.PROT_READ) as log:
        for at in range(0, min(count, MAX_SEGMENTS) * SEGMENT_BYTES, SEGMENT_BYTES):
            yield decode(log[at : at + SEGMENT_BYTES])
