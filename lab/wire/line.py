"""A running wire as its owner holds it: start it, change its script, read its journal."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from lab.errors import KernelError
from lab.wire.loop import Change, Journal
from lab.wire.rules import Script

_ANSWER_WITHIN_S = 10.0


class Line:
    """The process that carries frames between two TAP devices.

    It ends with :meth:`close`, and by itself when its owner dies.

    Attributes:
        pid: of the process.
    """

    def __init__(self, client_tap: int, server_tap: int) -> None:
        ours, theirs = Pipe()
        self._control: Connection = ours
        inherited = (client_tap, server_tap, theirs.fileno())
        for fd in inherited:
            os.set_inheritable(fd, True)
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-S", "-E", "-c", _START, root, *map(str, inherited)]
        # not fork: the owner may have threads, and the child must not carry their locks
        self.pid = os.posix_spawn(sys.executable, command, dict(os.environ))
        for fd in inherited:
            os.set_inheritable(fd, False)
        # ours is the only end left here: its closing is what ends the process
        theirs.close()

    def change(self, script: Script, *, delay_ms: float) -> None:
        """Carry every packet seen from now on by ``script``, ``delay_ms`` one way.

        Raises:
            KernelError: the wire's process is gone.
        """
        self._ask(Change(script, round(delay_ms * 1e6)))

    def journal(self) -> Journal:
        """Return what has passed so far.

        Raises:
            KernelError: the wire's process is gone.
        """
        answer = self._ask("journal")
        assert isinstance(answer, Journal)
        return answer

    def close(self) -> None:
        """End the process; idempotent. Its TAP devices go when their other holders let go."""
        if self.pid:
            self._control.close()
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _ask(self, order: object) -> object:
        try:
            self._control.send(order)
            if self._control.poll(_ANSWER_WITHIN_S):
                return self._control.recv()
        except (OSError, EOFError):
            pass
        raise KernelError(
            f"the wire (process {self.pid}) does not answer",
            hint="it was killed or the machine is overloaded; start the experiment again",
        )


# without site-packages the wire is ready in a third of the time; it needs the standard library only
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from lab.wire.loop import main; main(sys.argv[1:])"
)
