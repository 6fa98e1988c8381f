"""TCP_INFO of one end, again and again while something happens."""

from __future__ import annotations

import threading
from types import TracebackType

from lab.wire.endpoint import Endpoint, TcpInfo


class Sampler:
    """Reads ``TCP_INFO`` of an endpoint every few milliseconds inside a ``with`` block.

    Reading takes the socket's lock for a moment: segments that arrive then wait. Sample what
    takes long, not what has to be counted exactly.
    """

    def __init__(self, endpoint: Endpoint, every_ms: float = 10.0) -> None:
        self._endpoint = endpoint
        self._every_s = every_ms / 1e3
        self._stop = threading.Event()
        self._taken: list[TcpInfo] = []
        self._thread = threading.Thread(target=self._run, name="tcp-info", daemon=True)

    @property
    def samples(self) -> tuple[TcpInfo, ...]:
        """What was read so far, oldest first."""
        return tuple(self._taken)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._taken.append(self._endpoint.info())
            # closed: the experiment is over
            except OSError:
                return
            self._stop.wait(self._every_s)
