"""The two ends of a TCP connection, as an experiment handles them."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType

from lab.errors import CheckFailed, UnsupportedError
from lab.waiting import eventually

WITHIN_S = 20.0
# a prime length: a segment lost, doubled or swapped shifts the pattern for every usual segment size
_PATTERN = bytes(range(251))


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOptions:
    """What is set on a socket before it connects or listens; 0 and empty leave the default.

    Attributes:
        congestion_control: ``reno``, ``cubic``, ``bbr`` ...
        receive_buffer_bytes: as given to ``SO_RCVBUF`` (the kernel doubles it).
        send_buffer_bytes: as given to ``SO_SNDBUF``.
        window_clamp_bytes: largest window to advertise.
        no_delay: switch Nagle's algorithm off.
        keepalive_s: (idle, interval, probes) of keepalive.
        user_timeout_ms: give up when data stays unacknowledged for so long.
    """

    congestion_control: str = ""
    receive_buffer_bytes: int = 0
    send_buffer_bytes: int = 0
    window_clamp_bytes: int = 0
    no_delay: bool = False
    keepalive_s: tuple[int, int, int] = (0, 0, 0)
    user_timeout_ms: int = 0

    def apply(self, raw: socket.socket) -> None:
        """Set the options.

        Raises:
            UnsupportedError: the kernel does not have the congestion control asked for.
        """
        if self.congestion_control:
            try:
                raw.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_CONGESTION, self.congestion_control.encode()
                )
            except OSError:
                raise UnsupportedError(
                    f"this kernel has no congestion control {self.congestion_control!r}",
                    hint="see /proc/sys/net/ipv4/tcp_available_congestion_control",
                ) from None
        # before connect or listen: the handshake already announces window and MSS
        numbers = (
            (socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer_bytes),
            (socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer_bytes),
            (socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, self.window_clamp_bytes),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, int(self.no_delay)),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(any(self.keepalive_s))),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self.keepalive_s[0]),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, self.keepalive_s[1]),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, self.keepalive_s[2]),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.user_timeout_ms),
        )
        for level, option, value in numbers:
            if value:
                raw.setsockopt(level, option, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpInfo:
    """What the kernel says about a connection (``TCP_INFO``), the fields experiments use.

    ``state`` is the number of ``TCP_ESTABLISHED`` ... (1 to 12), ``ca_state`` 0 Open, 1 Disorder,
    2 CWR, 3 Recovery, 4 Loss. Windows and ``ssthresh`` of the sender count segments, ``snd_wnd``
    and ``rcv_wnd`` bytes; times are microseconds. ``rcv_wnd`` is None where the kernel's structure
    ends before it (Linux 6.1).
    """

    time_ns: int
    state: int
    ca_state: int
    retransmits: int
    probes: int
    backoff: int
    rto_us: int
    snd_mss: int
    unacked: int
    lost: int
    retrans: int
    rtt_us: int
    ssthresh: int
    cwnd: int
    total_retrans: int
    busy_us: int
    rwnd_limited_us: int
    snd_wnd: int
    rcv_wnd: int | None


def read_info(raw: socket.socket) -> TcpInfo:
    """Return what the kernel says about a connection now."""
    data = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)
    # struct tcp_info (linux/tcp.h): eight bytes, then words up to tcpi_total_retrans
    word = struct.unpack_from("<24I", data, 8)
    busy_us, rwnd_limited_us = struct.unpack_from("<2Q", data, 168)
    (snd_wnd,) = struct.unpack_from("<I", data, 228)
    # the kernel gives as much of the structure as it has
    rcv_wnd = struct.unpack_from("<I", data, 232)[0] if len(data) >= 236 else None
    return TcpInfo(
        time_ns=time.monotonic_ns(),
        state=data[0],
        ca_state=data[1],
        retransmits=data[2],
        probes=data[3],
        backoff=data[4],
        rto_us=word[0],
        snd_mss=word[2],
        unacked=word[4],
        lost=word[6],
        retrans=word[7],
        rtt_us=word[15],
        ssthresh=word[17],
        cwnd=word[18],
        total_retrans=word[23],
        busy_us=busy_us,
        rwnd_limited_us=rwnd_limited_us,
        snd_wnd=snd_wnd,
        rcv_wnd=rcv_wnd,
    )


def pattern(count: int, start: int = 0) -> bytes:
    """Return ``count`` bytes of the stream every experiment sends, from position ``start``."""
    shift = start % len(_PATTERN)
    return (_PATTERN * (count // len(_PATTERN) + 2))[shift : shift + count]


class Endpoint:
    """One end of a connection; it sends a known stream and checks what it receives.

    Attributes:
        name: of the host.
        raw: the socket itself, for anything not offered here.
        sent: bytes handed to the kernel so far.
        received: bytes read so far.
        intact: whether everything read was the other end's stream, in order.
    """

    def __init__(self, name: str, raw: socket.socket) -> None:
        self.name = name
        self.raw = raw
        self.sent = 0
        self.received = 0
        self.intact = True
        # no call waits for ever: an experiment whose script loses everything still ends
        raw.settimeout(WITHIN_S)

    def send(self, what: int | bytes) -> None:
        """Hand bytes to the kernel in one call: so many of the known stream, or these.

        Raises:
            CheckFailed: the kernel did not take them within 20 s, or the connection has ended.
        """
        payload = pattern(what, self.sent) if isinstance(what, int) else what
        try:
            self.raw.sendall(payload)
        except TimeoutError:
            raise CheckFailed(
                f"{self.name} could not send {len(payload)} bytes within {WITHIN_S:g} s",
                hint="the receiver's window stays closed or everything is lost",
            ) from None
        except OSError as error:
            raise self._ended(error) from None
        self.sent += len(payload)

    def send_some(self, count: int) -> int:
        """Hand at most ``count`` bytes of the known stream to the kernel, as many as it takes.

        Returns how many it took; call it when the socket is writable.
        """
        taken = self.raw.send(pattern(min(count, 65536), self.sent), socket.MSG_DONTWAIT)
        self.sent += taken
        return taken

    def receive(self, count: int) -> bytes:
        """Read until exactly ``count`` bytes have come, or the other side closes.

        Raises:
            CheckFailed: they did not come within 20 s.
        """
        parts: list[bytes] = []
        missing = count
        while missing:
            part = self.receive_once(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def receive_once(self, room: int = 65536) -> bytes:
        """Do one ``recv`` call and return what it gave; empty at the end of the stream.

        Raises:
            CheckFailed: nothing came within 20 s, or the connection was reset.
        """
        try:
            part = self.raw.recv(room)
        except TimeoutError:
            raise CheckFailed(
                f"{self.name} received nothing within {WITHIN_S:g} s",
                hint="look at the ladder: where did the last segment go?",
            ) from None
        except OSError as error:
            raise self._ended(error) from None
        self.intact &= part == pattern(len(part), self.received)
        self.received += len(part)
        return part

    def receive_until_end(self) -> bytes:
        """Read until the other side has closed its direction."""
        parts: list[bytes] = []
        while part := self.receive_once():
            parts.append(part)
        return b"".join(parts)

    def info(self) -> TcpInfo:
        """Return what the kernel says about this end now."""
        return read_info(self.raw)

    def set_option(self, option: int, value: int) -> None:
        """Set an integer TCP option, for example ``socket.TCP_CORK``."""
        self.raw.setsockopt(socket.IPPROTO_TCP, option, value)

    def set_quick_ack(self, on: bool) -> None:
        """Acknowledge at once, or let acknowledgements wait; TCP may change its mind later."""
        self.set_option(socket.TCP_QUICKACK, int(on))

    def limit_window(self, count: int) -> None:
        """Advertise at most so many bytes from now on (``TCP_WINDOW_CLAMP``).

        The kernel sets its own limit again when it sees the first full-size segment: call it
        once that segment is there and before it is acknowledged. A window never shrinks.
        """
        self.set_option(socket.TCP_WINDOW_CLAMP, count)

    def wait_readable(self, within_s: float = WITHIN_S) -> bool:
        """Wait until something can be read; false if the time passes first."""
        return bool(select.select([self.raw], [], [], within_s)[0])

    def wait_acknowledged(self) -> None:
        """Wait until everything sent has been acknowledged.

        Raises:
            CheckFailed: it was not within 20 s.
        """
        eventually(
            lambda: self.info().unacked == 0, within_s=WITHIN_S, what="everything acknowledged"
        )

    def error(self) -> str:
        """Return and clear the socket's pending error as its name, such as ``ETIMEDOUT``."""
        number = self.raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode[number] if number else ""

    def end(self) -> None:
        """Close the sending direction (FIN); receiving goes on."""
        self.raw.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions; idempotent."""
        self.raw.close()

    def reset(self) -> None:
        """Abort the connection with RST, forgetting unsent data."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()

    def _ended(self, error: OSError) -> CheckFailed:
        name = errno.errorcode.get(error.errno or 0, "")
        return CheckFailed(
            f"the connection of the {self.name} has ended: {name} {error.strerror}",
            hint="look at the ladder for RST, or for a timer that gave up",
        )

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
