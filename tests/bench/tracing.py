"""What tracing costs: packets beside the traced one, the traced ones themselves, arm and disarm.

Run it alone on the machine: ``lab bench tracing`` (root). Nothing is asserted: figures are read.
Each round measures every case once, one after the other on the same path (pod to pod over the
tunnel, sender and softirq on one processor, the reader on the other), so that drift hits all.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lab import Lab, Node, Pod, Topology
from lab.observe.tracer import Flow, Tracer
from lab.waiting import eventually

ROUNDS = int(os.environ.get("LAB_BENCH_ROUNDS", "7"))
PACKETS = 20_000
FLOOD_S = 5
PORT, OTHER = 5000, 5001
BURST = """
import os, socket, sys, time
os.sched_setaffinity(0, {0})
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect((address, port))
data = b"x" * 64
for _ in range(500): s.send(data)
send, begun = s.send, time.perf_counter_ns()
for _ in range(count): send(data)
print((time.perf_counter_ns() - begun) / count)
"""
DRAIN = """
import os, select, socket, sys, time
os.sched_setaffinity(0, {1})
socks = []
for port in sys.argv[2:]:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", int(port))); socks.append(s)
    s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for s in select.select(socks, [], [], 0.2)[0]:
        try:
            for _ in range(500): s.recv(2048, socket.MSG_DONTWAIT)
        except BlockingIOError: pass
"""
TOPOLOGY = Topology(
    name="bench-tracing",
    nodes=(Node("alpha"), Node("beta")),
    pods=(Pod("client", node="alpha"), Pod("server", node="beta")),
)


def burst(lab: Lab, port: int, count: int = PACKETS) -> float:
    """Return nanoseconds per datagram sent from client to server, delivery included."""
    address = str(lab.pod("server").address)
    command = [sys.executable, "-c", BURST, address, str(port), str(count)]
    return float(lab.pod("client").run(command, check=True).stdout)


def cases(lab: Lab, off: Callable[[], float]) -> dict[str, Callable[[], float]]:
    """Return what is measured, by name."""
    address = str(lab.pod("server").address)

    def with_tracer(stacks: bool, want: Callable[[Tracer], None]) -> Callable[[], float]:
        def run() -> float:
            with Tracer(lab, stacks=stacks) as tracer:
                want(tracer)
                cost = burst(lab, PORT)
                tracer.pause()
                return cost

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
        "nothing attached": off,
        "attached, nothing wanted": with_tracer(True, lambda tracer: tracer.pause()),
        "armed for a cookie": with_tracer(True, cookie),
        "armed for another flow": with_tracer(True, other_flow),
        "every packet traced, no stacks": with_tracer(False, this_flow),
        "every packet traced, stacks": with_tracer(True, this_flow),
    }


def arming(lab: Lab) -> tuple[float, float]:
    """Return seconds to arm and to disarm once."""
    begun = time.perf_counter()
    tracer = Tracer(lab)
    tracer.only_cookie(1)
    armed = time.perf_counter()
    tracer.close()
    return armed - begun, time.perf_counter() - armed


def flood(lab: Lab, rate: float) -> tuple[int, int, int]:
    """Trace one packet in the middle of a flood; return (packets sent, lines, events lost)."""
    count = int(FLOOD_S * rate)
    with ThreadPoolExecutor(1) as pool, Tracer(lab) as tracer:
        beside = pool.submit(burst, lab, PORT, count)
        tracer.only_cookie(77, sender="world", destination=str(lab.pod("server").address))
        lab.world.send_udp(lab.node("alpha"), OTHER, cookie=77, want_reply=False)
        beside.result()
        traces = tracer.traces()
        lost = tracer.lost
    mine = [trace for trace in traces if trace.packet.cookie == f"{77:016x}"]
    strangers = len(traces) - len(mine)
    print(f"  packets mixed into the trace: {strangers}")
    return count, len(mine[0].taken) if mine else 0, lost


def main() -> None:
    """Measure and print."""
    with Lab(TOPOLOGY) as lab, ThreadPoolExecutor(1) as pool:
        seconds = 20 + ROUNDS * 30
        drain = [sys.executable, "-c", DRAIN, str(seconds), str(PORT), str(OTHER)]
        server = lab.pod("server")
        pool.submit(server.run, ["timeout", str(seconds), *drain], timeout_s=seconds + 5)
        lab.pod("client").ping(server)
        probe = [sys.executable, "-c", BURST, str(server.address), str(PORT), "1"]
        client = lab.pod("client")
        eventually(lambda: not client.run(probe).returncode, what="the reader listens")
        measured: dict[str, list[float]] = {}
        todo = cases(lab, lambda: burst(lab, PORT))
        for _ in range(ROUNDS):
            for name, run in todo.items():
                measured.setdefault(name, []).append(run())
        report(measured)
        arms = [arming(lab) for _ in range(ROUNDS)]
        print(f"arm    {statistics.median(a for a, _ in arms) * 1000:7.1f} ms")
        print(f"disarm {statistics.median(d for _, d in arms) * 1000:7.1f} ms")
        rate = 1e9 / statistics.median(measured["nothing attached"])
        sent, lines, lost = flood(lab, rate)
        print(f"one packet beside {sent} others ({rate:.0f}/s): {lines} lines, {lost} events lost")
        lab.keeper.stop()


def report(measured: dict[str, list[float]]) -> None:
    """Print the median of each case and what it costs compared with nothing attached."""
    base = statistics.median(measured["nothing attached"])
    print(f"{'UDP, pod to pod over the tunnel':34} ns/packet   cost   (spread)")
    for name, values in measured.items():
        middle = statistics.median(values)
        spread = (max(values) - min(values)) / middle * 100
        print(f"{name:34} {middle:9.0f} {100 * (middle / base - 1):+6.1f} %  ({spread:.0f} %)")


if __name__ == "__main__":
    main()
