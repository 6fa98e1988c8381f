"""What has to be undone although the process that did it may be killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_DONE = b"1"


@contextmanager
def guarded(undo: Callable[[], None], *keep: int) -> Iterator[None]:
    """Undo something when the block is over, or when this process is, however it ends.

    A second process waits beside this one, without any of its descriptors but those named, and
    undoes what this one no longer can. It ends with the block.

    Args:
        undo: called once, in one of the two processes; raises nothing.
        keep: descriptors that it needs.
    """
    waiting, telling = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _let_go({waiting, *keep})
            # an empty answer: nobody is left who could have told
            if os.read(waiting, 1) != _DONE:
                undo()
        finally:
            os._exit(0)
    os.close(waiting)
    try:
        yield
    finally:
        undo()
        os.write(telling, _DONE)
        os.close(telling)
        os.waitpid(child, 0)


def _let_go(keep: set[int]) -> None:
    low = 0
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
