"""The process that is the wire: reads frames from two TAP devices and writes them when due.

``python -m lab.wire.loop CLIENT_FD SERVER_FD CONTROL_FD`` is started by :mod:`lab.wire.line`. It
asks for real-time priority, because a wire that waits for its turn is a wire with random delay,
and ends when its starter does (end of file on the control connection).

On two cores, with other work on the machine, 3000 packets a second are written 25 µs late at
worst in 99 of 100 cases, 45 000 a second 0.2 ms late; from about 70 000 on packets are lost before
it reads them (``tests/bench/wire.py`` measures it again).
"""

from __future__ import annotations

import gc
import heapq
import os
import select
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from lab.wire.judge import Delivery, Fate, Judge
from lab.wire.rules import Script, Way

SNAP_BYTES = 192
_FRAME_ROOM = 65_600
_BURST = 64
_REAL_TIME_PRIORITY = 10
_SPIN_NS = 80_000


@dataclass(frozen=True, slots=True)
class Passage:
    """What the wire did with one frame.

    Attributes:
        way: its direction.
        read_ns: monotonic time at which it left the sender's device.
        fate: what happened.
        frame_bytes: its length with the Ethernet header.
        head: its first ``SNAP_BYTES`` bytes.
        written: for each copy, when it was due and when it reached the receiver's device.
    """

    way: Way
    read_ns: int
    fate: Fate
    frame_bytes: int
    head: bytes
    written: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Journal:
    """Everything that passed the wire, in the order it saw it.

    Attributes:
        passages: one per frame.
        unmet: rules whose packet never came, as sentences.
        refused: frames the receiver's device did not take.
        real_time: whether the process got real-time priority.
    """

    passages: tuple[Passage, ...]
    unmet: tuple[str, ...]
    refused: int
    real_time: bool


@dataclass(frozen=True, slots=True)
class Change:
    """Order to the wire: go on with this script and delay."""

    script: Script
    delay_ns: int


class Wire:
    """The wire's state and its loop over two TAP descriptors."""

    def __init__(self, taps: tuple[int, int], control: Connection) -> None:
        self._taps = taps
        self._control = control
        self._judge = Judge(Script())
        self._heap: list[tuple[int, int, Delivery]] = []
        self._pushed = 0
        self._seen: list[tuple[Way, int, Fate, int, bytes]] = []
        # by number of packet, in step with what was seen
        self._written: list[list[tuple[int, int]]] = []
        self._refused = 0
        self._real_time = _claim_real_time()

    def run(self) -> None:
        """Carry frames until the control connection ends."""
        control_fd = self._control.fileno()
        watched = [*self._taps, control_fd]
        while True:
            ready = select.select(watched, [], [], self._pause_s())[0]
            for way in Way:
                if self._taps[way] in ready:
                    self._take(way)
            self._write_due()
            if control_fd in ready and not self._obey():
                return

    def _pause_s(self) -> float | None:
        deadlines = [self._heap[0][0]] if self._heap else []
        held_until = self._judge.next_deadline_ns()
        if held_until is not None:
            deadlines.append(held_until)
        if not deadlines:
            return None
        # the last 80 µs are spent awake: select may oversleep by that much
        return max(0.0, (min(deadlines) - time.monotonic_ns() - _SPIN_NS) / 1e9)

    def _take(self, way: Way) -> None:
        # a limit, so that one busy direction does not keep the other, and what is due, waiting
        for _ in range(_BURST):
            try:
                frame = os.read(self._taps[way], _FRAME_ROOM)
            except BlockingIOError:
                return
            now_ns = time.monotonic_ns()
            fate, deliveries = self._judge.judge(way, frame, now_ns)
            self._seen.append((way, now_ns, fate, len(frame), frame[:SNAP_BYTES]))
            self._written.append([])
            self._push(deliveries)

    def _push(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            # the running number keeps the order of frames that are due at the same time
            self._pushed += 1
            heapq.heappush(self._heap, (delivery.due_ns, self._pushed, delivery))

    def _write_due(self) -> None:
        now_ns = time.monotonic_ns()
        self._push(self._judge.overdue(now_ns))
        while self._heap and self._heap[0][0] <= now_ns:
            due_ns, _, delivery = heapq.heappop(self._heap)
            # taken before the write: the receiver's TCP answers inside it
            now_ns = time.monotonic_ns()
            try:
                os.write(self._taps[delivery.way.back], delivery.frame)
            # counted, and the wire goes on: the device may be down, or gone already
            except OSError:
                self._refused += 1
            else:
                self._written[delivery.packet].append((due_ns, now_ns))

    def _obey(self) -> bool:
        try:
            order = self._control.recv()
        except (EOFError, ConnectionResetError):
            return False
        if isinstance(order, Change):
            # packets that are on their way keep what was decided for them
            self._judge.delay_ns = order.delay_ns
            self._judge.change(order.script)
            self._control.send(True)
        else:
            self._control.send(self._journal())
        return True

    def _journal(self) -> Journal:
        passages = tuple(
            Passage(*seen, tuple(written))
            for seen, written in zip(self._seen, self._written, strict=True)
        )
        return Journal(passages, self._judge.unmet(), self._refused, self._real_time)


def _claim_real_time() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_REAL_TIME_PRIORITY))
    # without the right to it the wire still works, later now and then; the journal says so
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> None:
    """Be the wire between the two TAP descriptors given as numbers."""
    client, server, control = map(int, arguments)
    # a collection in the middle of a burst would be a delay that no rule asked for
    gc.disable()
    Wire((client, server), Connection(control)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
