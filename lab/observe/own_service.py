"""The part of a user's own probe inside a lab: a child of the keeper that holds it with bcc.

It pins nothing: its end, however it comes, is the end of the probe.
"""

from __future__ import annotations

import contextlib
import select
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lab import codec
from lab.errors import InputError, TopologyError
from lab.kernel.bcc import Device, Output, OwnProgram, writers
from lab.kernel.headers import find_headers
from lab.names import did_you_mean
from lab.runtime.messages import receive, send
from lab.trace.own import Attach, Probe

if TYPE_CHECKING:
    from lab.runtime.keeper import Context

POLL_S = 0.02
MOST_EVENTS = 1 << 20


class Holder:
    """Owner of one probe in a lab.

    Args:
        context: of the keeper's child process.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.probe: Probe = codec.decode(Probe, context.arguments["probe"])
        self.events: list[Output] = []
        self.dropped = 0
        self.headers = find_headers()
        self.devices = {one: self._device(one) for one in self.probe.attach if one.at.on_device}
        # left out only by those who want to know how it is on a kernel without
        tcx = bool(context.arguments.get("tcx", True))
        self.program = OwnProgram(self.probe, self.headers, tcx=tcx)
        self.numbers: dict[Attach, int] = {}

    def attach(self) -> None:
        """Put every function where it belongs.

        Raises:
            LabError: one of them cannot go there; those before it are out again.
        """
        try:
            for one in self.probe.attach:
                self.numbers[one] = self.program.attach(one, self.devices.get(one))
        except BaseException:
            self.program.close()
            raise

    def _device(self, one: Attach) -> Device:
        place, device = one.device
        spaces = self.context.namespaces
        try:
            name = place if place in spaces else self.context.facts.pod(place).netns
        except TopologyError:
            known = [*spaces, *(pod.name for pod in self.context.facts.pods)]
            raise InputError(
                f"{one}: the lab has no place {place!r}", hint=did_you_mean(place, known)
            ) from None
        with spaces[name].entered():
            numbers = {known: index for index, known in socket.if_nameindex()}
        if device not in numbers:
            raise InputError(
                f"{one}: {place} has no device {device!r}", hint=did_you_mean(device, numbers)
            )
        return spaces[name], numbers[device]

    def describe(self) -> dict[str, Any]:
        """Return who writes into which buffer, and what the probe was compiled against."""
        buffers = {}
        for buffer in self.program.buffers:
            sources = writers(self.probe, buffer) or self.probe.attach
            devices = [self.devices[one] for one in sources if one in self.devices]
            places = [[space.inode, ifindex] for space, ifindex in devices]
            at = {one.at for one in sources}
            only = sources[0] if len(sources) == 1 else None
            buffers[buffer] = {
                # of several kinds of hooks the weakest: what is claimed holds for all
                "at": max(at, key=lambda kind: kind.evidence.rank).word,
                "function": only.function or only.target if only else "",
                "target": only.target if only and not only.at.on_device else "",
                "number": self.numbers[only] if only else 0,
                # a function that sits elsewhere too may write about any place
                "places": places if len(places) == len(sources) else [],
            }
        headers = {"release": self.headers.release, "fit": self.headers.fit}
        return {"ready": True, "buffers": buffers, "headers": headers}

    def drain(self) -> None:
        """Move what the buffers hold into memory; beyond a bound events count as lost."""
        taken = self.program.poll()
        if len(self.events) > MOST_EVENTS:
            self.dropped += len(taken)
            return
        self.events += taken

    def take(self) -> dict[str, Any]:
        """Return what was written since the last call, and how much was lost since the start."""
        self.drain()
        events, self.events = [asdict(event) for event in self.events], []
        return {"events": events, "lost": self.program.lost + self.dropped}


def serve(connection: socket.socket, context: Context) -> None:
    """Hold a probe until the caller closes the connection.

    Raises:
        Closed: the caller is gone; the keeper ends the process.
    """
    holder = Holder(context)
    holder.attach()
    try:
        send(connection, holder.describe())
        while True:
            readable, _, _ = select.select([connection], [], [], POLL_S)
            if readable:
                receive(connection)
                send(connection, holder.take())
            else:
                holder.drain()
    finally:
        with contextlib.suppress(OSError):
            holder.program.close()
