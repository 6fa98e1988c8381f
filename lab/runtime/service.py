"""The caller's end of a process that the keeper started for it: ask, read, and wait for its end."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from lab.errors import KernelError
from lab.runtime.messages import Closed, receive, send
from lab.runtime.start import raise_error

if TYPE_CHECKING:
    from lab.runtime.live import Lab

_END_S = 5.0
_ROOM = 1 << 20


class Service:
    """Base of what lives as long as its connection to a child of the keeper (``keeper.spawn``)."""

    _lab: Lab
    _connection: socket.socket

    @property
    def _title(self) -> str:
        """How messages call it."""
        raise NotImplementedError

    def _ask(self, **request: object) -> dict[str, Any]:
        try:
            send(self._connection, request)
        except Closed as error:
            raise self._gone() from error
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        try:
            answer, _ = receive(self._connection)
        except Closed as error:
            raise self._gone() from error
        raise_error(answer)
        return answer

    def _read(self, size: int) -> bytes:
        """Take so many raw bytes that follow an answer."""
        chunks: list[bytes] = []
        while size:
            chunk = self._connection.recv(min(size, _ROOM))
            if not chunk:
                raise self._gone()
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)

    def _gone(self) -> KernelError:
        return KernelError(
            f"{self._title} of lab {self._lab.name!r} is gone",
            hint="is the lab still up? see its keeper.log",
        )

    def close(self) -> None:
        """End the process and wait until what it held has left the kernel; idempotent."""
        if self._connection.fileno() < 0:
            return
        with contextlib.suppress(OSError), self._connection as connection:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(_END_S)
            # it hangs up only when its probes are out of the kernel
            while connection.recv(_ROOM):
                pass
