"""What TCP itself reports: the kernel's tracepoints for the sockets of two hosts."""

from __future__ import annotations

import mmap
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum

from lab.datapath.build import SOURCES, build
from lab.errors import KernelError
from lab.kernel.bpf import Loaded, ProgramType, load_object
from lab.kernel.bpfattach import attach_tracing

EVENT_BYTES = 64
MAX_EVENTS = 16384
NO_THRESHOLD = 0x7FFFFFFF
"""``ssthresh`` of a connection that has not lost anything yet."""

_FIXED = struct.Struct("<QQBBBxHHI8I")
_ONLY_ENTRY = struct.pack("<I", 0)


class What(IntEnum):
    """Which tracepoint spoke (``enum what`` of ``bpf/probes/tcp_events.c``)."""

    PROBE = 0
    RETRANSMIT = 1
    CONGESTION = 2
    STATE = 3


class CongestionState(IntEnum):
    """What TCP believes about the path (``enum tcp_ca_state``)."""

    OPEN = 0
    DISORDER = 1
    CWR = 2
    RECOVERY = 3
    LOSS = 4


class TcpState(IntEnum):
    """The states of a connection (``include/net/tcp_states.h``)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpEvent:
    """One word of a TCP socket: its numbers at one moment.

    Attributes:
        time_ns: monotonic clock.
        cookie: of the socket.
        what: which tracepoint.
        before: state number before (``STATE`` only).
        after: state number after (``STATE``, ``CONGESTION``).
        at_client: whose socket.
        port: the client's port: which connection.
        cwnd: segments; like the rest of the numbers 0 for ``STATE``.
        ssthresh: segments, ``NO_THRESHOLD`` before the first loss.
        snd_wnd: window the other side advertised, in bytes.
        rcv_wnd: window advertised to the other side, in bytes.
        srtt_us: smoothed round-trip time.
        packets_out: segments sent and not acknowledged.
        snd_una: oldest unacknowledged sequence number, as on the wire.
        snd_nxt: next sequence number to send, as on the wire.
    """

    time_ns: int
    cookie: int
    what: What
    before: int
    after: int
    at_client: bool
    port: int
    cwnd: int
    ssthresh: int
    snd_wnd: int
    rcv_wnd: int
    srtt_us: int
    packets_out: int
    snd_una: int
    snd_nxt: int


class EventPrograms:
    """The attached tracepoint programs; they go with :meth:`close` and with the process."""

    def __init__(self, client_netns: int, server_netns: int) -> None:
        (path,) = build([SOURCES / "probes" / "tcp_events.c"])
        self._client_netns = client_netns
        with ExitStack() as stack:
            config = {"client_netns": client_netns, "server_netns": server_netns}
            self._loaded: Loaded = stack.enter_context(
                load_object(path, default_type=ProgramType.TRACING, config=config)
            )
            # no tracefs, no names: an attached tracepoint is a descriptor, and gone with it
            for program in self._loaded.programs.values():
                stack.enter_context(attach_tracing(program))
            self._stack = stack.pop_all()

    def events(self) -> tuple[TcpEvent, ...]:
        """Return what was reported so far, in the kernel's order.

        Raises:
            KernelError: the log was too small for the experiment.
        """
        raw = self._loaded.maps["happened"].lookup(_ONLY_ENTRY) or b""
        count = int.from_bytes(raw, "little")
        if count > MAX_EVENTS:
            raise KernelError(
                f"TCP reported {count} events, the log holds {MAX_EVENTS}",
                hint="send less in one experiment",
            )
        table = self._loaded.maps["tcp_events"].fd
        # the map was made with BPF_F_MMAPABLE: one mapping instead of a system call for each event
        with mmap.mmap(table, MAX_EVENTS * EVENT_BYTES, prot=mmap.PROT_READ) as log:
            return tuple(
                self._decode(log[at : at + EVENT_BYTES])
                for at in range(0, count * EVENT_BYTES, EVENT_BYTES)
            )

    def close(self) -> None:
        """Detach and unload; idempotent."""
        self._stack.close()

    def _decode(self, raw: bytes) -> TcpEvent:
        time_ns, cookie, what, before, after, local, remote, netns, *rest = _FIXED.unpack_from(raw)
        at_client = netns == self._client_netns
        cwnd, ssthresh, snd_wnd, rcv_wnd, srtt_us, packets_out, snd_una, snd_nxt = rest
        return TcpEvent(
            time_ns=time_ns,
            cookie=cookie,
            what=What(what),
            before=before,
            after=after,
            at_client=at_client,
            # a server's socket has the client's port as its remote one
            port=local if at_client else remote,
            cwnd=cwnd,
            ssthresh=ssthresh,
            snd_wnd=snd_wnd,
            rcv_wnd=rcv_wnd,
            srtt_us=srtt_us,
            packets_out=packets_out,
            snd_una=snd_una,
            snd_nxt=snd_nxt,
        )
