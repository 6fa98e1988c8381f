"""Nodes that tell of every packet for as long as somebody listens.

Without a listener the datapath tells of what is new of a flow only, which costs less. The setting
belongs to a child of the keeper that lives as long as the listener's connection: however the
listener ends, killed included, it is taken back.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.kernel.bpfmap import BpfMap
from lab.layouts.core import Aggregation, Index, RuntimeSlot, Word
from lab.plan.steps import NODES_DIR, globals_dir
from lab.runtime.messages import receive, send

if TYPE_CHECKING:
    from lab.runtime.keeper import Context

SERVICE = "lab.observe.told"


@contextmanager
def _everything_told(node: str) -> Iterator[None]:
    """Let a node tell of every packet in the block, and behind it unless somebody else listens."""
    lock = os.open(Path(NODES_DIR, node, "listeners.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    try:
        # shared among the listeners: who gets it alone afterwards was the last of them
        fcntl.flock(lock, fcntl.LOCK_SH)
        _aggregate(node, Aggregation.NONE)
        try:
            yield
        finally:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                _aggregate(node, Aggregation.MEDIUM)
    finally:
        os.close(lock)


def _aggregate(node: str, level: Aggregation) -> None:
    with BpfMap.from_pin(Path(globals_dir(node), "cilium_runtime_config")) as config:
        config.update(Index(index=RuntimeSlot.AGGREGATION).pack(), Word(value=level).pack())


def serve(connection: socket.socket, context: Context) -> None:
    """Let the nodes of the argument ``nodes`` tell everything until the connection is closed.

    The listener gets one message once they do.

    Raises:
        Closed: the listener is gone; the keeper ends the process.
        KernelError: a node has no datapath.
    """
    with ExitStack() as stack:
        for node in context.arguments["nodes"]:
            stack.enter_context(_everything_told(node))
        send(connection, {"ready": True})
        receive(connection)
