"""Measuring from inside a pod: round trips, connections, throughput, on a chosen CPU."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from lab.kernel.messages import send

RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER`` of zero seconds: closing resets, and leaves no TIME_WAIT behind."""

# share of the tries that is not counted: the first ones also wait for ARP and fill caches
WARM_UP = 0.1
WAITING = 4096
"""Connections that may wait to be accepted: more than one measurement opens on the CPU it shares
with the server, which gets to accept them later. A full queue costs the next one a second."""
# a lab's pods have reno, whatever the machine has: what is compared uses the same
CUBIC = b"cubic"


def _pin(cpu: int) -> None:
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})


def _summary(ns: Sequence[int]) -> dict[str, Any]:
    ordered = sorted(ns)
    return {
        "count": len(ordered),
        "p50_us": statistics.median(ordered) / 1000,
        "p99_us": ordered[int(len(ordered) * 0.99)] / 1000,
    }


def round_trips(
    address: str, port: int, count: int = 10_000, cpu: int = -1, protocol: str = "tcp"
) -> dict[str, Any]:
    """Send one byte and wait for its echo, again and again on one flow; returns percentiles."""
    _pin(cpu)
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    clock = time.perf_counter_ns
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(2.0)
        sock.connect((address, port))
        if protocol == "tcp":
            # Nagle's algorithm would hold a byte back until the one before it is acknowledged
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = []
        for _ in range(count):
            begun = clock()
            sock.send(b"x")
            sock.recv(16)
            found.append(clock() - begun)
    return _summary(found[int(count * WARM_UP) :])


def connections(address: str, port: int, count: int = 1000, cpu: int = -1) -> dict[str, Any]:
    """Open a TCP connection and reset it, again and again; returns percentiles of opening."""
    _pin(cpu)
    clock = time.perf_counter_ns
    found = []
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(2.0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            begun = clock()
            sock.connect((address, port))
            found.append(clock() - begun)
    return _summary(found[int(count * WARM_UP) :])


def throughput(address: str, port: int, seconds: float = 1.0, cpu: int = -1) -> dict[str, Any]:
    """Send as much as goes to a server that reads and answers when told; returns Gbit/s."""
    _pin(cpu)
    data = memoryview(bytes(1 << 17))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CUBIC)
        sock.connect((address, port))
        sent, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            sent += sock.send(data)
        sock.shutdown(socket.SHUT_WR)
        # the server closes when it has read everything
        sock.recv(1)
        # until the last byte is read, not until it is in the send buffer
        elapsed = time.perf_counter() - begun
    return {"gbps": sent * 8 / elapsed / 1e9}


def mirror(connection: socket.socket, port: int, cpu: int, sink: bool) -> None:
    """Serve one TCP connection after the other, with nothing between the system calls.

    Args:
        connection: to the caller; its end ends the process.
        port: to listen on.
        cpu: to stay on, -1 for any.
        sink: read everything and send nothing, instead of sending back.
    """
    _pin(cpu)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", port))
    listener.listen(WAITING)
    send(connection, {"ready": True, "port": port})
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, contextlib.suppress(ConnectionError):
            room = bytearray(1 << 18)
            while size := client.recv_into(room):
                if not sink:
                    client.send(memoryview(room)[:size])


def _end_with(connection: socket.socket) -> None:
    # the other thread waits in accept or recv, which no end of the caller interrupts
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(0)


MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "round_trips": round_trips,
    "connections": connections,
    "throughput": throughput,
}
