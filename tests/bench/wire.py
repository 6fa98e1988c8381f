"""How punctual the TAP wire is at 3000 packets per second, and where it ends.

``python tests/bench/wire.py [RATE ...]`` as root; one line per rate. The
sender is a process of its own.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.wire import Bench, TwoHosts, Way  # noqa: E402
from lab.wire.recording import lateness  # noqa: E402

RATES = tuple(map(int, sys.argv[1:])) or (1000, 3000, 10_000, 20_000, 45_000, 70_000, 100_000)
SECONDS = 2.0
DELAY_MS = 10.0
PAYLOAD = bytes(200)


def send_paced(sender, rate: int) -> None:
    """Send at ``rate`` packets per second for ``SECONDS``, then leave the process."""
    begun, gap = time.monotonic(), 1 / rate
    for number in range(int(rate * SECONDS)):
        while time.monotonic() < begun + number * gap:
            pass
        sender.send(PAYLOAD)
    os._exit(0)


def measure(rate: int) -> str:
    """Return one line of the table."""
    with Bench(TwoHosts(delay_ms=DELAY_MS)) as lab:
        sender, _ = lab.datagram_sockets()
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            send_paced(sender, rate)
        os.waitpid(child, 0)
        took = time.monotonic() - begun
        lab.wait_quiet()
        journal = lab.journal()
        late = lateness(journal.passages)
    carried = sum(1 for passage in journal.passages if passage.way is Way.TO_SERVER)
    return (
        f"{rate:>8} {carried / took:>9.0f} {100 * carried / (rate * SECONDS):>7.1f} %"
        f" {late.p50_us:>9.0f} {late.p99_us:>9.0f} {late.max_us:>9.0f}"
    )


if __name__ == "__main__":
    print(f"{'wanted':>8} {'carried':>9} {'share':>9} {'p50 us':>9} {'p99 us':>9} {'max us':>9}")
    for wanted in RATES:
        print(measure(wanted), flush=True)
