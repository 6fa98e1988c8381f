"""Long flows: a TCP connection that stays open, and one that carries bytes all the time.

They live in the worker that opened them and are known by a number.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from lab.errors import InputError, KernelError

TCP_INFO = socket.TCP_INFO
TOTAL_RETRANS_OFFSET = 100
"""Offset of ``tcpi_total_retrans`` in ``struct tcp_info`` (linux/tcp.h)."""

CHUNK = bytes(1 << 15)
WINDOW = 1 << 18
"""Bytes of a stream that are on their way at most, there and back."""

# module-level: the worker is one process, and its calls come one after the other
_sessions: dict[int, socket.socket] = {}
_streams: dict[int, _Stream] = {}
_numbers = itertools.count(1)


def session_open(address: str, port: int, timeout_s: float = 2.0) -> dict[str, Any]:
    """Connect and keep the connection; returns its number.

    Raises:
        KernelError: nobody accepted it.
    """
    number = next(_numbers)
    _sessions[number] = _connect(address, port, timeout_s)
    return {"session": number, "local_port": _sessions[number].getsockname()[1]}


def session_echo(session: int, payload: str) -> dict[str, Any]:
    """Send the payload and return what comes back: the first bytes, as they arrive.

    Raises:
        InputError: no such session.
    """
    if session not in _sessions:
        raise InputError(f"session {session} is closed", hint="open it again")
    try:
        _sessions[session].sendall(bytes.fromhex(payload))
        return {"reply": _sessions[session].recv(65536).hex(), "error": ""}
    except OSError as error:
        return {"reply": "", "error": str(error)}


def session_close(session: int) -> dict[str, Any]:
    """Close a session; idempotent."""
    sock = _sessions.pop(session, None)
    if sock is not None:
        sock.close()
    return {}


def stream_start(address: str, port: int, timeout_s: float = 2.0) -> dict[str, Any]:
    """Connect to an echo server and keep bytes going round; returns the stream's number.

    Raises:
        KernelError: nobody accepted it.
    """
    number = next(_numbers)
    _streams[number] = _Stream(_connect(address, port, timeout_s))
    return {"stream": number}


def stream_report(stream: int) -> dict[str, Any]:
    """Return bytes sent and received so far, segments sent again, and the error that ended it."""
    return _streams[stream].report()


def stream_stop(stream: int) -> dict[str, Any]:
    """End a stream and return its last report."""
    found = _streams.pop(stream)
    found.stop()
    return found.report()


def _connect(address: str, port: int, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect((address, port))
    except OSError as error:
        sock.close()
        raise KernelError(
            f"connecting to {address}:{port}: {error}", hint="is a server listening there?"
        ) from None
    return sock


class _Stream:
    """A thread that sends whenever it can and reads whatever comes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent = self.received = self.retransmitted = 0
        self.error = ""
        self.running = True
        sock.setblocking(False)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while self.running:
                # a window of what is under way keeps both directions moving
                ready = [self.sock] if self.sent - self.received < WINDOW else []
                readable, writable, _ = select.select([self.sock], ready, [], 0.2)
                if readable:
                    data = self.sock.recv(1 << 18)
                    if not data:
                        self.error = "closed by the other side"
                        return
                    self.received += len(data)
                if writable:
                    with contextlib.suppress(BlockingIOError):
                        self.sent += self.sock.send(CHUNK)
        except OSError as error:
            self.error = str(error)

    def report(self) -> dict[str, Any]:
        if self.sock.fileno() >= 0:
            # as much as every kernel has: the structure grows with each release
            info = self.sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 104)
            (self.retransmitted,) = struct.unpack_from("=I", info, TOTAL_RETRANS_OFFSET)
        return {
            "sent": self.sent,
            "received": self.received,
            "retransmitted": self.retransmitted,
            "error": self.error,
        }

    def stop(self) -> None:
        # the thread looks every 0.2 s at the latest
        self.running = False
        self.thread.join()
        self.report()
        self.sock.close()


FLOW_OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "session_open": session_open,
    "session_echo": session_echo,
    "session_close": session_close,
    "stream_start": stream_start,
    "stream_report": stream_report,
    "stream_stop": stream_stop,
}
