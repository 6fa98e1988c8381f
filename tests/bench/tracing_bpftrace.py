"""What bpftrace costs on the tracer's tracepoints, beside the tracer, on the same path.

``lab bench tracing_bpftrace``, or on the second kernel ``lab vm -- lab bench tracing_bpftrace``
(root, bpftrace). Nothing is asserted: figures are read. bpftrace cannot know a packet by its
contents: where the tracer is armed for another packet, bpftrace compares the length. Where every
packet is traced both tell time, place, buffer and length of each event; the tracer also keeps the
packet's first 192 bytes.
"""

from __future__ import annotations

import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from lab import Lab
from tests.bench import tracing

BUFFERS = (
    "net:netif_rx", "net:netif_receive_skb", "net:net_dev_queue", "net:net_dev_start_xmit",
    "net:napi_gro_receive_entry", "skb:kfree_skb", "skb:consume_skb",
)  # fmt: skip
WITH_LENGTH = frozenset(BUFFERS) - {"skb:kfree_skb", "skb:consume_skb"}
OTHERS = ("napi:napi_poll", "fib:fib_table_lookup", "sock:sk_data_ready")
MOUNT = "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing"
BPFTRACE = ("unshare", "--mount", "sh", "-c", f'{MOUNT}; exec bpftrace "$@"', "bpftrace")
"""In a mount namespace of its own: the machine's stay as they are."""
READY = b"ready"
STARTS_WITHIN_S = 120
NO_SUCH_LENGTH = 64_999


def available() -> tuple[str, ...]:
    """Return the tracepoints of the tracer that this kernel has."""
    listed = subprocess.run(
        [*BPFTRACE, "-l", "tracepoint:*"], capture_output=True, text=True, check=True
    ).stdout.split()
    found = tuple(name for name in BUFFERS + OTHERS if f"tracepoint:{name}" in listed)
    if not found:
        raise LookupError("bpftrace sees no tracepoints: is tracefs there?")
    return found


def script(names: tuple[str, ...], *, wanted: bool, stacks: bool = False) -> str:
    """Return a bpftrace program that tells of every event, or of none that comes here."""
    lines = ['BEGIN { printf("ready\\n"); }']
    for name in names:
        length = "args->len" if name in WITH_LENGTH else "0"
        buffer = "args->skbaddr" if name in BUFFERS else "0"
        told = f'printf("%llu {name} %llx %d%s\\n", nsecs, (uint64){buffer}, {length}, '
        told += "kstack);" if stacks else '"");'
        test = "" if wanted else f"/ {length} == {NO_SUCH_LENGTH} /"
        lines.append(f"tracepoint:{name} {test} {{ {told} }}")
    return "\n".join(lines)


@contextmanager
def running(program: str) -> Iterator[float]:
    """Run a bpftrace program while the block runs; yield the seconds until it was attached."""
    begun = time.perf_counter()
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            [*BPFTRACE, "-B", "line", "-e", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        assert process.stdout is not None
        seen = b""
        while READY not in seen:
            if not select.select([process.stdout], [], [], STARTS_WITHIN_S)[0]:
                raise TimeoutError(f"bpftrace attached nothing: {seen.decode()}")
            more = process.stdout.read1()
            if not more:
                raise ChildProcessError(f"bpftrace ended: {seen.decode()}")
            seen += more
        took = time.perf_counter() - begun
        copying = pool.submit(shutil.copyfileobj, process.stdout, output)
        try:
            yield took
        finally:
            process.terminate()
            copying.result()
            output.seek(0)
            if b"Lost " in output.read():
                print("  bpftrace lost events: the figure is too good", file=sys.stderr)


def cases(cost: Callable[[], float], arms: list[float]) -> dict[str, Callable[[], float]]:
    """Return what is measured of bpftrace, by name; seconds to attach go to ``arms``."""
    names = available()

    def with_bpftrace(program: str) -> Callable[[], float]:
        def run() -> float:
            with running(program) as took:
                arms.append(took)
                return cost()

        return run

    return {
        "bpftrace: armed for another length": with_bpftrace(script(names, wanted=False)),
        "bpftrace: every event": with_bpftrace(script(names, wanted=True)),
        "bpftrace: every event, stacks": with_bpftrace(script(names, wanted=True, stacks=True)),
    }


def main() -> None:
    """Measure both in turn and print."""
    if shutil.which("bpftrace") is None:
        print("bpftrace is not installed: apt install bpftrace")
        return
    arms: list[float] = []
    pool = ThreadPoolExecutor(2)
    with Lab(tracing.TOPOLOGY) as lab, pool, tracing.loop(lab, pool) as path:
        ours = {
            f"lab: {name}": run
            for name, (_, run) in tracing.cases(lab, path.burst).items()
            if "cookie" not in name
        }
        todo = ours | cases(path.burst, arms)
        measured: dict[str, list[float]] = {name: [] for name in todo}
        nothing = [path.burst()]
        for _ in range(tracing.ROUNDS):
            for name, run in todo.items():
                cost, before = run(), nothing[-1]
                nothing.append(path.burst())
                measured[name].append(2 * cost / (before + nothing[-1]) - 1)
        base = statistics.median(nothing)
        print(f"UDP, pod to pod over the tunnel, nothing attached: {base:.0f} ns per datagram")
        print(f"tracepoints of bpftrace: {' '.join(available())}")
        for name, values in measured.items():
            print(tracing.row(name, values, 100, "%", ""))
        own = [tracing.arming(lab) for _ in range(tracing.ROUNDS)]
        print(tracing.row("lab: arm", [arm for arm, _ in own], 1000, "ms", ""))
        print(tracing.row("bpftrace: arm", arms, 1000, "ms", ""))


if __name__ == "__main__":
    main()
