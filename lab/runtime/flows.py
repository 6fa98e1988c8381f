"""Long flows of a place: a session that stays open, a stream that keeps moving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import CheckFailed
from lab.traffic.results import StreamReport

if TYPE_CHECKING:
    from lab.runtime.live import Place


class Session:
    """A TCP connection that stays open inside a block."""

    def __init__(self, place: Place, number: int) -> None:
        self._place = place
        self._number = number

    def echo(self, payload: bytes) -> bytes:
        """Send bytes and return the first that come back.

        Raises:
            CheckFailed: the connection is broken or nothing came back in time.
        """
        answer = self._place.call("session_echo", session=self._number, payload=payload.hex())
        if answer["error"]:
            raise CheckFailed(
                f"session of {self._place.name!r}: {answer['error']}",
                hint="look for drops with `lab monitor`",
            )
        return bytes.fromhex(answer["reply"])


class Stream:
    """A TCP connection that carries bytes to an echo server and back inside a block."""

    def __init__(self, place: Place, number: int) -> None:
        self._place = place
        self._number = number

    def report(self) -> StreamReport:
        """Return bytes and retransmissions so far."""
        return StreamReport(**self._place.call("stream_report", stream=self._number))
