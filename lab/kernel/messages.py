"""Messages between keeper, workers and callers: length, JSON, and file descriptors beside it."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")
MAX_FDS = 8


class Closed(Exception):
    """The other side is gone."""


def send(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send one message, with file descriptors attached to its first byte.

    Raises:
        Closed: the other side is gone.
    """
    data = json.dumps(message).encode()
    packet = _LENGTH.pack(len(data)) + data
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sent = sock.sendmsg([packet], ancillary)
        # the descriptors went with the first byte: the rest is ordinary data
        if sent < len(packet):
            sock.sendall(packet[sent:])
    except OSError as error:
        raise Closed(str(error)) from None


def receive(sock: socket.socket) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Wait for one message; the caller owns the file descriptors that came with it.

    Raises:
        Closed: the other side is gone.
        TimeoutError: the socket's timeout passed.
    """
    fds: list[int] = []
    head = _read(sock, _LENGTH.size, fds)
    data = _read(sock, _LENGTH.unpack(head)[0], fds)
    return json.loads(data), tuple(fds)


def _read(sock: socket.socket, size: int, fds: list[int]) -> bytes:
    chunks = b""
    while len(chunks) < size:
        try:
            data, ancillary, _, _ = sock.recvmsg(
                size - len(chunks), socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except (ConnectionError, BrokenPipeError) as error:
            raise Closed(str(error)) from None
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds += array.array("i", payload[: len(payload) // 4 * 4])
        if not data:
            # nobody would own the descriptors of half a message
            for fd in fds:
                os.close(fd)
            raise Closed("end of file")
        chunks += data
    return chunks
