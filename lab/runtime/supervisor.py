"""The agent's life as its keeper sees it: started, ended, and started again if it ended by itself.

While no agent is there the datapath forwards as before: programs and maps are attached and pinned.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.runtime.messages import Closed, receive

FIRST_DELAY_S = 0.1
"""Until the next agent, after one that lived for `STEADY_S`; doubled for each that did not."""

LONGEST_DELAY_S = 10.0
STEADY_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Child:
    """A child that the keeper keeps track of; it ends when ``connection`` is closed."""

    pid: int
    connection: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What there is to know of an agent that may not be there to be asked.

    Attributes:
        running: there is one.
        restarts: how many were started because the one before had ended by itself.
        ended: how the last of those ended; empty if none has.
        next_s: seconds until the next one is started; None when none is due.
    """

    running: bool
    restarts: int
    ended: str
    next_s: float | None


class Supervisor:
    """Keeps one agent running until told to stop it.

    Args:
        fork: starts an agent.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, fork: Callable[[], Child], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.child: Child | None = None
        self.restarts = 0
        self.ended = ""
        self._fork = fork
        self._clock = clock
        self._born = 0.0
        self._delay_s = 0.0
        self._due: float | None = None

    def start(self) -> None:
        """Start an agent if there is none; one that was due is started now."""
        self._due = None
        if self.child is None:
            self.child = self._fork()
            self._born = self._clock()

    def stop(self) -> None:
        """Kill the agent as ``kill -9`` would, and start no other one; idempotent."""
        self._due = None
        if self.child is not None:
            os.kill(self.child.pid, signal.SIGKILL)
            # waited for here, so that the keeper's own reaping does not take it for a crash
            os.waitpid(self.child.pid, 0)
            os.close(self.child.connection)
            self.child = None

    def reaped(self, pid: int, status: int) -> None:
        """Take note that a child of the keeper has ended, if it was the agent.

        Args:
            pid: of the child.
            status: as ``os.waitpid`` gives it.
        """
        if self.child is None or pid != self.child.pid:
            return
        self.ended = self._last_words(self.child) or _how(status)
        self.child = None
        now = self._clock()
        steady = now - self._born >= STEADY_S
        self._delay_s = (
            FIRST_DELAY_S if steady or not self._delay_s
            else min(2 * self._delay_s, LONGEST_DELAY_S)
        )  # fmt: skip
        self._due = now + self._delay_s
        log.warning("the agent ended: %s; the next one in %.1f s", self.ended, self._delay_s)

    def _last_words(self, child: Child) -> str:
        with socket.socket(fileno=child.connection) as connection:
            connection.setblocking(False)
            try:
                message, _ = receive(connection)
            except (Closed, OSError, ValueError):
                return ""
        return str(message.get("message", ""))

    def wait_s(self) -> float | None:
        """Return the seconds until :meth:`tick` has something to do, None for never."""
        return None if self._due is None else max(self._due - self._clock(), 0.0)

    def tick(self) -> None:
        """Start the next agent if it is due."""
        if self._due is not None and self._due <= self._clock():
            self.restarts += 1
            self.start()
            log.warning("agent number %d after one that ended by itself", self.restarts)

    def life(self) -> Life:
        """Return what there is to tell."""
        return Life(
            running=self.child is not None,
            restarts=self.restarts,
            ended=self.ended,
            next_s=self.wait_s(),
        )


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
