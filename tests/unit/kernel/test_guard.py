"""What is guarded is undone once: at the end of the block, or of the process that is in it."""

import os
import signal
import subprocess
import sys

from lab.kernel.guard import guarded
from lab.waiting import eventually

INSIDE = """
import pathlib, sys
from lab.kernel.guard import guarded
with guarded(lambda: pathlib.Path(sys.argv[1]).touch()):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_block_that_ends_undoes_it_here_and_once() -> None:
    undone: list[int] = []
    with guarded(lambda: undone.append(os.getpid())):
        assert undone == []
    assert undone == [os.getpid()]


def test_a_process_that_is_killed_is_undone_by_another(tmp_path) -> None:
    command = [sys.executable, "-c", INSIDE, str(tmp_path / "undone")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        assert not (tmp_path / "undone").exists()
        os.kill(process.pid, signal.SIGKILL)
        # the other one holds nothing of it: its output ends with it
        assert process.stdout.read() == b""
    eventually((tmp_path / "undone").exists, what="somebody undid it")
