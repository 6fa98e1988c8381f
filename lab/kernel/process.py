"""Other programs, run by argument list: the only place of the package that starts any."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lab.errors import KernelError, PrerequisiteError

# Debian's package for each program the lab calls, for the hint when one is missing.
PACKAGE_OF = {
    "bpftool": "bpftool",
    "busybox": "busybox-static",
    "clang": "clang",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "file": "file",
    "ip": "iproute2",
    "iptables": "iptables",
    "llvm-objdump": "llvm",
    "llvm-strip": "llvm",
    "mn": "mininet",
    "modprobe": "kmod",
    "nft": "nftables",
    "ping": "iputils-ping",
    "qemu-system-x86_64": "qemu-system-x86",
    "ss": "iproute2",
    "tc": "iproute2",
    "tcpdump": "tcpdump",
    "tshark": "tshark",
}
# Where Debian keeps administrators' tools; not on an ordinary user's PATH.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished program left.

    Attributes:
        argv: the argument list as it was run.
        returncode: its exit code; minus the signal number if a signal ended it.
        stdout: what it wrote on standard output, decoded as UTF-8 (undecodable bytes replaced).
        stderr: the same for standard error.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def find(program: str) -> str | None:
    """Return the path of ``program``, looking in PATH and then where Debian keeps system tools."""
    if os.sep in program:
        return program if os.access(program, os.X_OK) else None
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *SBIN]
    for folder in filter(None, folders):
        candidate = Path(folder) / program
        # A folder of the PATH may be closed to this user (root's own, under su): access() says no.
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return str(candidate)
    return None


def require(program: str) -> str:
    """Return the path of ``program``.

    Raises:
        PrerequisiteError: it is not installed; the hint names Debian's package.
    """
    path = find(program)
    if path is None:
        package = PACKAGE_OF.get(program)
        hint = f"apt install {package}, or let ./lab.sh do it" if package else "check the spelling"
        raise PrerequisiteError(f"the program {program!r} is not installed", hint=hint)
    return path


def run(
    argv: Sequence[str],
    *,
    timeout_s: float | None = 60.0,
    input_text: str = "",
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Run a program to its end and return what it left; it never reads the caller's stdin.

    Args:
        argv: program and arguments, never a shell line.
        timeout_s: seconds after which it is killed; None waits for ever.
        input_text: what it reads on standard input.
        check: raise if it ends with another code than 0.
        env: its whole environment; the caller's if None.
        cwd: its working directory; the caller's if None.

    Raises:
        PrerequisiteError: the program is not installed.
        KernelError: it took too long, or failed and ``check`` is set; its stderr is in the message.
    """
    command = [require(argv[0]), *argv[1:]]
    line = shlex.join(argv)
    try:
        done = subprocess.run(
            command,
            input=input_text.encode(),
            capture_output=True,
            timeout=timeout_s,
            env=env,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"`{line}` did not end within {timeout_s:g} s") from error
    completed = Completed(
        tuple(argv),
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )
    if check and done.returncode:
        said = (completed.stderr or completed.stdout).strip() or "nothing"
        raise KernelError(f"`{line}` ended with {done.returncode} and said: {said}")
    return completed


def call(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """Run a program on the caller's own terminal and return its exit code.

    Ctrl-C reaches the program too (same process group): the caller waits for it to end, so that
    nothing is left behind, and then sees KeyboardInterrupt. A program ended by signal N gives
    128 + N, as in a shell.

    Raises:
        PrerequisiteError: the program is not installed.
    """
    command = [require(argv[0]), *argv[1:]]
    with _deaf_to(signal.SIGINT) as interrupted:
        code = subprocess.Popen(
            command, env=env, cwd=cwd, preexec_fn=_default_interrupt
        ).wait()  # the child is never abandoned: wait() is not interrupted by SIGINT here
    _pass_on(interrupted)
    return 128 - code if code < 0 else code


def relay(
    argv: Sequence[str],
    *,
    tick: Callable[[], None],
    env: Mapping[str, str] | None = None,
    every_s: float = 0.2,
    grace_s: float = 3.0,
) -> int:
    """Run a program through pipes, copy its output to ours as it comes, and return its exit code.

    For programs that must not open our output themselves (qemu would truncate a file). Standard
    input is empty. On Ctrl-C the program, which got it too, has ``grace_s`` seconds to end before
    it is killed; then KeyboardInterrupt. On SIGTERM it is killed, then SystemExit.

    Args:
        argv: program and arguments.
        tick: called every ``every_s`` seconds while the program runs, and once after it.
        env: its whole environment; the caller's if None.
        every_s: pause between two ticks, in seconds.
        grace_s: seconds left to it after Ctrl-C.

    Raises:
        PrerequisiteError: the program is not installed.
    """
    with _deaf_to(signal.SIGINT, signal.SIGTERM) as interrupted:
        child = subprocess.Popen(
            [require(argv[0]), *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            preexec_fn=_default_interrupt,
        )
        copiers = [
            threading.Thread(target=_copy, args=(pipe, number), daemon=True)
            for pipe, number in ((child.stdout, 1), (child.stderr, 2))
        ]
        for copier in copiers:
            copier.start()
        deadline: float | None = None
        while True:
            try:
                child.wait(timeout=every_s)
                break
            except subprocess.TimeoutExpired:
                tick()
            if interrupted:
                deadline = deadline or time.monotonic() + grace_s
                if signal.SIGTERM in interrupted or time.monotonic() > deadline:
                    child.kill()
        # the last lines may still be in the pipes when the program has ended
        for copier in copiers:
            copier.join(timeout=grace_s)
        tick()
    _pass_on(interrupted)
    return 128 - child.returncode if child.returncode < 0 else child.returncode


def _copy(pipe: IO[bytes] | None, number: int) -> None:
    assert pipe is not None
    with pipe:
        while chunk := os.read(pipe.fileno(), 65536):
            view = memoryview(chunk)
            while view:
                view = view[os.write(number, view) :]


@contextmanager
def running(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace_s: float = 3.0,
    feed: str = "",
) -> Iterator[subprocess.Popen[bytes]]:
    """Keep a program running beside the caller; it has ended when the block has.

    Standard output and error are pipes of the yielded process. At the end of the block it gets
    SIGTERM, and SIGKILL after ``grace_s`` seconds.

    Args:
        argv: program and arguments.
        env: its whole environment; the caller's if None.
        cwd: its working directory; the caller's if None.
        grace_s: seconds between the two signals.
        feed: what it reads on standard input, which then stays open as long as the block, and
            no longer than the caller lives; empty for no input.

    Raises:
        PrerequisiteError: the program is not installed.
    """
    process = subprocess.Popen(
        [require(argv[0]), *argv[1:]],
        stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=cwd,
    )
    if process.stdin is not None:
        process.stdin.write(feed.encode())
        process.stdin.flush()
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        except ValueError:
            # The block has read and closed the pipes itself.
            process.wait()


@contextmanager
def _deaf_to(*numbers: int) -> Iterator[list[int]]:
    """Collect these signals instead of being interrupted by them, in the main thread."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {
        number: signal.signal(number, lambda got, _frame: received.append(got))
        for number in numbers
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(received: list[int]) -> None:
    if signal.SIGTERM in received:
        raise SystemExit(128 + signal.SIGTERM)
    if received:
        raise KeyboardInterrupt


def _default_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
