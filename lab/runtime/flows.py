"""Long flows of a place, and measurements: sessions, streams, round trips, throughput."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from lab.errors import CheckFailed
from lab.runtime.messages import receive
from lab.runtime.start import raise_error
from lab.traffic.results import Latency, StreamReport

if TYPE_CHECKING:
    from lab.runtime.live import Destination, Lab

WORKER = "lab.traffic.worker"


def address_of(to: Destination) -> str:
    """Return a destination as text: a place's address, or the address given."""
    return str(to) if isinstance(to, str | IPv4Address) else str(to.address)


class Session:
    """A TCP connection that stays open inside a block."""

    def __init__(self, place: Flows, number: int) -> None:
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

    def __init__(self, place: Flows, number: int) -> None:
        self._place = place
        self._number = number

    def report(self) -> StreamReport:
        """Return bytes and retransmissions so far."""
        return StreamReport(**self._place.call("stream_report", stream=self._number))


class Flows:
    """The part of a place that keeps flows open and measures."""

    name: str
    _lab: Lab

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Run one operation of :mod:`lab.traffic.operations` in a process born in this place."""
        raise NotImplementedError

    @contextmanager
    def session(self, to: Destination, port: int, *, timeout_s: float = 2.0) -> Iterator[Session]:
        """Keep a TCP connection open inside the block.

        Raises:
            KernelError: nobody accepted it.
        """
        arguments = {"address": address_of(to), "port": port, "timeout_s": timeout_s}
        number = self.call("session_open", **arguments)["session"]
        try:
            yield Session(self, number)
        finally:
            self.call("session_close", session=number)

    @contextmanager
    def stream(self, to: Destination, port: int) -> Iterator[Stream]:
        """Send to an echo server as fast as it answers inside the block.

        Raises:
            KernelError: nobody accepted it.
        """
        number = self.call("stream_start", address=address_of(to), port=port)["stream"]
        try:
            yield Stream(self, number)
        finally:
            self.call("stream_stop", stream=number)

    @contextmanager
    def mirror(self, port: int, *, cpu: int = -1, sink: bool = False) -> Iterator[None]:
        """Send back what comes on TCP inside the block, one connection at a time, for measuring.

        Args:
            port: to listen on.
            cpu: to stay on, -1 for any.
            sink: only read.
        """
        arguments = {"port": port, "cpu": cpu, "sink": sink}
        connection = self._lab.keeper.spawn(WORKER, self.name, mirror=arguments)
        try:
            raise_error(receive(connection)[0])
            yield
        finally:
            # its port is free again once its end of the connection is closed
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1):
                pass
            connection.close()

    def round_trips(
        self, to: Destination, port: int, *, count: int = 10_000, cpu: int = -1
    ) -> Latency:
        """Send one byte and wait for its echo, ``count`` times on one TCP connection."""
        address = address_of(to)
        return Latency(**self.call("round_trips", address=address, port=port, count=count, cpu=cpu))

    def connections(
        self, to: Destination, port: int, *, count: int = 1000, cpu: int = -1
    ) -> Latency:
        """Open and reset a TCP connection ``count`` times; how long opening took."""
        address = address_of(to)
        return Latency(**self.call("connections", address=address, port=port, count=count, cpu=cpu))

    def throughput(
        self, to: Destination, port: int, *, seconds: float = 1.0, cpu: int = -1
    ) -> float:
        """Send for so many seconds to a mirror that only reads; return Gbit/s."""
        address = address_of(to)
        answer = self.call("throughput", address=address, port=port, seconds=seconds, cpu=cpu)
        return float(answer["gbps"])
