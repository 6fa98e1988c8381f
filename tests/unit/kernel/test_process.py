"""Other programs: what comes back, and what is said when one is missing or fails."""

import os
import signal
import sys
from pathlib import Path

import pytest

from lab.errors import KernelError, PrerequisiteError
from lab.kernel import process

PYTHON = sys.executable


def test_output_and_code_come_back() -> None:
    done = process.run(
        [PYTHON, "-c", "import sys; print(input()); sys.exit(7)"], input_text="hello\n", check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello\n", "")


MISSING = {
    "a known program names its package": ("bpftool", "apt install bpftool"),
    "an unknown one does not invent a package": ("no-such-thing", "check the spelling"),
}


@pytest.mark.parametrize(("program", "hint"), MISSING.values(), ids=MISSING.keys())
def test_missing_program_is_named_with_what_to_install(
    program: str, hint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(process, "SBIN", ())
    with pytest.raises(PrerequisiteError, match=program) as caught:
        process.run([program, "--version"])
    assert hint in caught.value.hint


def test_failure_carries_the_line_and_what_was_said() -> None:
    with pytest.raises(KernelError, match="ended with 3 and said: broken"):
        process.run([PYTHON, "-c", "import sys; sys.stderr.write('broken'); sys.exit(3)"])


def test_program_that_hangs_is_killed() -> None:
    with pytest.raises(KernelError, match="did not end within 0.2 s"):
        process.run([PYTHON, "-c", "import signal; signal.pause()"], timeout_s=0.2)


CODES = {
    "an ordinary code is passed on": ("raise SystemExit(5)", 5),
    "a signal becomes 128 plus its number": ("import os; os.kill(os.getpid(), 9)", 137),
}


@pytest.mark.parametrize(("code", "expected"), CODES.values(), ids=CODES.keys())
def test_called_program_gives_its_code(code: str, expected: int) -> None:
    assert process.call([PYTHON, "-c", code]) == expected


def test_interrupt_waits_for_the_program_and_then_interrupts() -> None:
    child = f"import os, signal; os.kill({os.getpid()}, signal.SIGINT)"
    with pytest.raises(KeyboardInterrupt):
        process.call([PYTHON, "-c", child])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_running_program_ends_with_the_block() -> None:
    with process.running([PYTHON, "-c", "import signal; signal.pause()"]) as child:
        assert child.poll() is None
    assert child.returncode == -signal.SIGTERM


def test_system_tools_are_found_without_sbin_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert process.find("modprobe") or process.find("ip") or process.find("nologin")
