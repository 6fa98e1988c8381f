"""What tracing costs: packets beside the traced one, the traced ones themselves, arm and disarm.

Run it alone on the machine: ``lab bench tracing`` (root). Nothing is asserted: figures are read,
each beside its goal. A datagram goes pod to pod over the tunnel and is read again by the same
process on the same processor; a burst's figure is the median of its chunks, so that what a
neighbour steals counts little. Every case is measured between two bursts with nothing attached and
compared with those two, so that drift hits both sides alike.
"""

from __future__ import annotations

import json
import os
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lab import Lab, Node, Pod, Topology
from lab.observe.tracer import Flow, Tracer
from lab.packets import frames, with_cookie

ROUNDS = int(os.environ.get("LAB_BENCH_ROUNDS", "7"))
CHUNKS, CHUNK, PAUSE_S = 20, 120, 0.025
"""So many datagrams at a time, then a pause, in which the collector empties the ring: a packet
whose records found no room would look cheap."""
FLOOD_S, FULL_RATE_CHUNK = 5, 5000
HELD_BYTES = 4 << 30
"""What a collector may hold that nobody asks: some seconds of every packet's records."""
PORT, OTHER = 5000, 5001
GENERATOR = Path(__file__).parents[1] / "live" / "live_frames.py"
RECEIVER = """
import socket, sys
data = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); data.bind(("", int(sys.argv[2])))
with socket.socket(socket.AF_UNIX) as caller:
    caller.connect(sys.argv[1])
    socket.send_fds(caller, [b"r"], [data.fileno()])
    caller.recv(1)
"""
SENDER = """
import json, os, select, socket, struct, sys, time
os.sched_setaffinity(0, {0})
caller = socket.socket(socket.AF_UNIX); caller.connect(sys.argv[1]); caller.send(b"s")
_, fds, _, _ = socket.recv_fds(caller, 1, 1)
inbox = socket.socket(fileno=fds[0])
inbox.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 0, 200000))
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); out.connect((sys.argv[2], int(sys.argv[3])))
data, send, recv, now = b"x" * 64, out.send, inbox.recv, time.thread_time_ns
for line in caller.makefile():
    count, chunk, pause = json.loads(line)
    chunks, lost = [], 0
    for _ in range(count):
        select.select([], [], [], pause)
        send(data); recv(2048)
        begun = now()
        try:
            for _ in range(chunk): send(data); recv(2048)
        except BlockingIOError: lost += 1
        else: chunks.append((now() - begun) / chunk)
    caller.sendall(json.dumps([chunks, lost]).encode() + b"\\n")
"""
TOPOLOGY = Topology(
    name="bench-tracing",
    nodes=(Node("alpha"), Node("beta")),
    pods=(Pod("client", node="alpha"), Pod("server", node="beta")),
)


class Loop:
    """The measured path: one process that sends at the client and reads at the server."""

    def __init__(self, connection: socket.socket) -> None:
        self._lines = connection.makefile("rw")
        self.lost = 0

    def burst(self, count: int = CHUNKS, chunk: int = CHUNK, pause_s: float = PAUSE_S) -> float:
        """Return nanoseconds per datagram, sent and read."""
        self._lines.write(json.dumps([count, chunk, pause_s]) + "\n")
        self._lines.flush()
        chunks, lost = json.loads(self._lines.readline())
        self.lost += lost
        return statistics.median(chunks)


@contextmanager
def loop(lab: Lab, pool: ThreadPoolExecutor) -> Iterator[Loop]:
    """Start receiver and sender, give the sender the receiver's socket."""
    client, server = lab.pod("client"), lab.pod("server")
    client.ping(server)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as door:
        path = str(Path(folder) / "door")
        door.bind(path)
        door.listen()
        python = [sys.executable, "-c"]
        receiver = pool.submit(server.run, [*python, RECEIVER, path, str(PORT)], timeout_s=600)
        there, _ = door.accept()
        _, fds, _, _ = socket.recv_fds(there, 1, 1)
        end = [path, str(server.address), str(PORT)]
        sender = pool.submit(client.run, [*python, SENDER, *end], timeout_s=600, check=True)
        here, _ = door.accept()
        here.recv(1)
        socket.send_fds(here, [b"f"], fds)
        os.close(fds[0])
        with there, here:
            try:
                yield Loop(here)
            finally:
                here.shutdown(socket.SHUT_RDWR)
        for process in (sender, receiver):
            process.result()


def cases(lab: Lab, cost: Callable[[], float]) -> dict[str, tuple[str, Callable[[], float]]]:
    """Return what is measured with its goal, by name."""
    address = str(lab.pod("server").address)

    def with_tracer(
        stacks: bool, want: Callable[[Tracer], None], *, idle: bool = False
    ) -> Callable[[], float]:
        def run() -> float:
            with Tracer(lab, stacks=stacks, idle=idle) as tracer:
                want(tracer)
                cost_ns = cost()
                tracer.pause()
                tracer.clear()
                if tracer.lost:
                    print(f"  {tracer.lost} events lost: the figure is too good")
                return cost_ns

        return run

    def cookie(tracer: Tracer) -> None:
        tracer.only_cookie(0x1234, sender="client", destination="10.0.9.9")

    def other_flow(tracer: Tracer) -> None:
        flow = Flow(destination=address, destination_port=OTHER, protocol=17)
        tracer.only_flow(flow, sender="client")

    def this_flow(tracer: Tracer) -> None:
        flow = Flow(destination=address, destination_port=PORT, protocol=17)
        tracer.only_flow(flow, sender="client", mind=False)

    return {
        "light: programs that do nothing": ("", with_tracer(False, cookie, idle=True)),
        "light: armed for a cookie": ("+10 %", with_tracer(False, cookie)),
        "light: armed for another flow": ("+10 %", with_tracer(False, other_flow)),
        "light: every packet traced": ("+25 %", with_tracer(False, this_flow)),
        "stacks: programs that do nothing": ("", with_tracer(True, cookie, idle=True)),
        "stacks: armed for a cookie": ("+10 %", with_tracer(True, cookie)),
        "stacks: armed for another flow": ("+10 %", with_tracer(True, other_flow)),
        "stacks: every packet traced": ("", with_tracer(True, this_flow)),
    }


def wait(seconds: float) -> None:
    """Let the flood go on for so long."""
    select.select([], [], [], seconds)


def arming(lab: Lab) -> tuple[float, float]:
    """Return seconds to arm and to disarm once."""
    begun = time.perf_counter()
    tracer = Tracer(lab)
    tracer.only_cookie(1)
    armed = time.perf_counter()
    tracer.close()
    return armed - begun, time.perf_counter() - armed


def costs(lab: Lab, path: Loop) -> dict[str, list[float]]:
    """Return how much longer than with nothing attached each case takes, once per round."""
    measured: dict[str, list[float]] = {}
    todo = cases(lab, path.burst)
    before = path.burst()
    for _ in range(ROUNDS):
        for name, (_, run) in todo.items():
            cost, after = run(), path.burst()
            measured.setdefault(name, []).append(2 * cost / (before + after) - 1)
            measured.setdefault("", []).append(after)
            before = after
    return measured


def sustained(lab: Lab, path: Loop) -> None:
    """Trace every packet for some seconds at the full rate of the path; print what was lost."""
    destination = str(lab.pod("server").address)
    flow = Flow(destination=destination, destination_port=PORT, protocol=17)

    def rate() -> float:
        begun, packets = time.perf_counter(), 0
        while time.perf_counter() - begun < FLOOD_S:
            path.burst(1, FULL_RATE_CHUNK, 0)
            packets += FULL_RATE_CHUNK + 1
        return packets / (time.perf_counter() - begun)

    free = rate()
    with Tracer(lab, stacks=False, most_bytes=HELD_BYTES) as tracer:
        tracer.only_flow(flow, sender="client", mind=False)
        traced = rate()
        held, lost = tracer.count()
    print(f"every packet traced for {FLOOD_S} s, light: {traced:.0f}/s, untraced {free:.0f}/s")
    print(f"  events {held}, events lost {lost} (goal 0)")


@contextmanager
def flood(lab: Lab, where: str, ifindex: int, frame: bytes) -> Iterator[list[float]]:
    """Inject copies of a frame meanwhile; afterwards the list holds how many a second."""
    rate: list[float] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        stop = Path(folder) / "stop"
        command = [sys.executable, str(GENERATOR), str(ifindex), frame.hex(), str(stop)]
        place = lab.place(where)
        done = pool.submit(place.run, command, timeout_s=60, check=True)
        try:
            yield rate
        finally:
            stop.touch()
            count, seconds = done.result().stdout.split()
            rate.append(int(count) / float(seconds))


def beside(lab: Lab, name: str, where: str, ifindex: int, frame: bytes) -> None:
    """Flood without and with tracing, with one traced packet in the middle; print what came."""
    with flood(lab, where, ifindex, frame) as free:
        wait(FLOOD_S / 2)
    with flood(lab, where, ifindex, frame) as armed, Tracer(lab, stacks=False) as tracer:
        tracer.only_cookie(77, sender="client", destination=str(lab.pod("server").address))
        wait(FLOOD_S / 2)
        lab.pod("client").send_udp(lab.pod("server"), OTHER, cookie=77, want_reply=False)
        wait(FLOOD_S / 2)
        traces, lost = tracer.traces(), tracer.lost
    mine = [trace for trace in traces if trace.packet.cookie == f"{77:016x}"]
    lines = len(mine[0].taken) if mine else 0
    mixed = sum(PORT in (t.packet.source_port, t.packet.destination_port) for t in traces)
    print(f"others beside one packet, {name}: {free[0]:.0f}/s, traced {armed[0]:.0f}/s")
    print(f"  its lines {lines}, others mixed in {mixed} (goal 0), events lost {lost} (goal 0)")


def floods(lab: Lab) -> None:
    """The same packets on the whole way, and as many as possible at the receiving device."""
    client, server = lab.pod("client").facts, lab.pod("server").facts
    ends = (str(client.address), str(server.address)), (4000, PORT)
    data = with_cookie(b"flood", 1)
    on_the_way = frames.udp((client.mac, client.lxc_mac), *ends, data)
    beside(lab, "on its whole way", "alpha", client.lxc_index, on_the_way)
    stranger = frames.udp((server.lxc_mac, "02:00:00:00:00:01"), *ends, data)
    beside(lab, "at its last device (goal 10^6/s)", "server", 2, stranger)


def main() -> None:
    """Measure and print."""
    with Lab(TOPOLOGY) as lab:
        floods(lab)
    with Lab(TOPOLOGY) as lab, ThreadPoolExecutor(2) as pool, loop(lab, pool) as path:
        measured = costs(lab, path)
        base = statistics.median(measured.pop(""))
        print(f"UDP, pod to pod over the tunnel, nothing attached: {base:.0f} ns per datagram")
        for name, (goal, _) in cases(lab, path.burst).items():
            print(row(name, measured[name], 100, "%", goal))
        sustained(lab, path)
        arms = [arming(lab) for _ in range(ROUNDS)]
        print(row("arm", [a for a, _ in arms], 1000, "ms", "300 ms"))
        print(row("disarm", [d for _, d in arms], 1000, "ms", "300 ms"))


def row(name: str, values: list[float], scale: float, unit: str, goal: str) -> str:
    """Return one line: median, lowest and highest, goal."""
    low, middle, high = (
        scale * value for value in (min(values), statistics.median(values), max(values))
    )
    goal = f"  goal <= {goal}" if goal else ""
    return f"{name:34} {middle:+8.1f} {unit}  ({low:+.1f} .. {high:+.1f}){goal}"


if __name__ == "__main__":
    main()
