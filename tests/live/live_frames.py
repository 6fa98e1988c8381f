"""A flood from inside a namespace: ``python live_frames.py IFINDEX FRAME STOP`` injects copies of
a frame (hexadecimal) as if the interface had received them, until the file STOP exists, and prints
how many and how long it took. An XDP program that passes everything sends them up the stack.
"""

import sys
import time
from pathlib import Path

from lab.kernel import rawbpf
from lab.kernel.bpf import Program, ProgramType

XDP_PASS = 2
AT_ONCE = 1 << 14


def main(ifindex: str, frame: str, stop: str) -> None:
    """Inject until told to stop."""
    count, begun = 0, time.monotonic()
    with rawbpf.loaded(ProgramType.XDP, rawbpf.returning(XDP_PASS)) as fd:
        program = Program(fd, name="pass")
        while not Path(stop).exists():
            program.inject(bytes.fromhex(frame), int(ifindex), AT_ONCE)
            count += AT_ONCE
    sys.stdout.write(f"{count} {time.monotonic() - begun}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
