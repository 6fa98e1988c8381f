"""Starting a keeper, and talking to one."""

from __future__ import annotations

import dataclasses
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import errors
from lab.errors import KernelError, LabError, PrerequisiteError
from lab.model import Topology
from lab.runtime import registry
from lab.runtime.messages import Closed, receive, send
from lab.runtime.version import code_version

_HERE = str(Path(__file__).resolve().parents[2])
_numbers = itertools.count(1)
Progress = Callable[[int, int], None]


def raise_error(message: dict[str, Any]) -> None:
    """Raise the error a keeper or worker sent; does nothing for any other message."""
    if "error" in message:
        kind = getattr(errors, message["error"], LabError)
        raise kind(message["message"], hint=message.get("hint", ""))


class KeeperProcess:
    """A keeper that this process started or found.

    Attributes:
        record: its entry in the registry.
        seconds: how long the plan took inside the keeper; 0 for one that was found.

    Args:
        patience_s: how long to wait for an answer; None for as long as it takes. A keeper that
            is building its lab answers when that is done.
    """

    def __init__(
        self,
        record: registry.Record,
        control: socket.socket | None = None,
        seconds: float = 0.0,
        *,
        patience_s: float | None = None,
    ) -> None:
        self.record = record
        self.seconds = seconds
        self._patience_s = patience_s
        self._control = control
        self._started = control is not None
        self._client: socket.socket | None = None
        # one question at a time: answers carry no number
        self._asking = threading.Lock()

    @property
    def root(self) -> Path:
        """The keeper's view of the file system, for reaching pins from outside."""
        return Path(f"/proc/{self.record.pid}/root")

    def ask(self, **request: Any) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Send a request and return the answer with its file descriptors.

        Raises:
            LabError: what the keeper answered.
            KernelError: the keeper is gone.
            PrerequisiteError: the keeper runs other code than this process.
        """
        # an end is understood by every version; a keeper that this process started is its own
        found = not self._started and request["op"] != "down"
        if found and self.record.code != code_version():
            raise PrerequisiteError(
                f"lab {self.record.name!r} was built by another version of this program",
                hint=f"`lab down {self.record.name}`, then `lab up` again",
            )
        try:
            with self._asking:
                if self._client is None:
                    self._client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    self._client.settimeout(self._patience_s)
                    self._client.connect(str(registry.socket_path(self.record.name)))
                send(self._client, request)
                answer, fds = receive(self._client)
        except (Closed, OSError) as error:
            raise KernelError(
                f"lab {self.record.name!r}: its keeper is gone ({error})", hint="start it again"
            ) from None
        raise_error(answer)
        return answer, fds

    def spawn(self, service: str, target: str = "", **arguments: Any) -> socket.socket:
        """Start a child of the keeper and return the connection to it.

        The child ends when the connection is closed, and with the lab.
        """
        _, fds = self.ask(op="spawn", service=service, target=target, arguments=arguments)
        return socket.socket(fileno=fds[0])

    def stop(self) -> None:
        """End the lab and wait until its keeper is gone; idempotent."""
        pid = _pidfd(self.record)
        if pid is not None:
            try:
                self.ask(op="down")
            except LabError:
                # whatever keeps it from answering: the kernel takes the lab back with its keeper
                signal.pidfd_send_signal(pid, signal.SIGKILL)
            _wait_for_end(pid)
        self.close()
        registry.forget(self.record)

    def close(self) -> None:
        """Drop the connections to the keeper; an attached keeper ends by that."""
        for connection in (self._client, self._control):
            if connection is not None:
                connection.close()
        self._client = self._control = None


def _pidfd(record: registry.Record) -> int | None:
    try:
        fd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return None
    # asked after the descriptor was opened: it cannot become another process's any more
    if registry.start_time(record.pid) != record.start_time:
        os.close(fd)
        return None
    return fd


def _wait_for_end(pidfd: int) -> None:

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    # five seconds for an orderly end; then the kernel does the same work
    if not poll.poll(5000):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.poll(5000)
    os.close(pidfd)


def unique_name(topology: Topology) -> str:
    """Return a lab name nobody else uses: the topology's with this process's number."""
    return f"{topology.name}-{os.getpid()}-{next(_numbers)}"


def require_root() -> None:
    """Refuse to go on without root.

    Raises:
        PrerequisiteError: the effective user is not root.
    """
    if os.geteuid() != 0:
        raise PrerequisiteError(
            "building a lab needs root: it makes network namespaces and loads BPF programs",
            hint="run it with sudo; `lab plan` works without",
        )


def start(
    topology: Topology,
    *,
    name: str,
    engine: str = "netns",
    attached: bool = True,
    progress: Progress | None = None,
    fault: dict[str, Any] | None = None,
    terminal: tuple[int, ...] = (),
) -> KeeperProcess:
    """Start a keeper, let it run the plan and return once the lab is up.

    Args:
        topology: what to build.
        name: of the lab, unique on the machine.
        engine: ``netns`` or ``mininet``.
        attached: the lab ends when this process closes the connection or ends.
        progress: called with (steps done, steps in all).
        fault: a provoked failure, for the leak tests: ``{"after": step, "kind": "hold"|"raise"}``.
        terminal: file descriptors (in, out, error) for the engine's prompt; the lab ends with it.

    Raises:
        LabError: what went wrong; nothing is left behind.
    """
    require_root()
    objects = compiled_objects(topology)
    ours, theirs = socket.socketpair()
    record = registry.Record(
        name=name,
        pid=os.getpid(),
        start_time=registry.start_time(os.getpid()),
        engine=engine,
        nodes=tuple(node.name for node in topology.nodes),
        pods=tuple(pod.full_name for pod in topology.pods),
    )
    # with this process's own pid until the keeper has told its: a name is never taken twice
    registry.reserve(record)
    keeper = KeeperProcess(record, ours)
    try:
        request = _request(keeper, topology, attached)
        request |= {"objects": objects, "fault": fault, "prompt": bool(terminal)}
        _launch(keeper, theirs, request, terminal)
        _follow(keeper, ours, progress)
    except BaseException:
        _abort(keeper)
        raise
    if not attached:
        keeper.close()
    return keeper


def compiled_objects(
    topology: Topology, progress: Callable[[str], None] | None = None
) -> dict[str, str]:
    """Return the compiled BPF objects a topology needs, by name; builds what is not cached.

    Raises:
        PrerequisiteError: clang is missing, or the cache is full.
        BuildError: a source does not compile.
    """
    if not topology.options.datapath:
        return {}
    from lab.datapath.build import build_objects
    from lab.layouts.attach import OBJECTS

    return {name: str(path) for name, path in build_objects(OBJECTS, progress=progress).items()}


def _request(keeper: KeeperProcess, topology: Topology, attached: bool) -> dict[str, Any]:
    record = keeper.record
    return {
        "topology": topology.to_json(),
        "engine": record.engine,
        "attached": attached,
        "record": {
            "name": record.name,
            "engine": record.engine,
        },
    }


def _launch(
    keeper: KeeperProcess,
    theirs: socket.socket,
    request: dict[str, Any],
    terminal: tuple[int, ...],
) -> None:
    record = keeper.record
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(registry.socket_path(record.name)))
    listener.listen(64)
    control = keeper._control
    assert control is not None
    # The stub process forks the keeper into its PID namespace and exits at once.
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.runtime.keeper", str(theirs.fileno())],
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=_log(record.name),
        # a long-lived process must not keep anybody's folder busy
        cwd="/",
        # where this process found its modules, the keeper finds them, too, virtual environment or
        # not
        env={**os.environ, "PYTHONPATH": os.pathsep.join([_HERE, *filter(None, sys.path)])},
    )
    # our copy would keep the connection open after the keeper has ended
    theirs.close()
    # the socket is bound outside: inside, /run is the lab's own and nobody would find it
    send(control, request, (listener.fileno(), *terminal))
    listener.close()
    _become_owner(keeper, control, process)


def _become_owner(
    keeper: KeeperProcess, control: socket.socket, process: subprocess.Popen[bytes]
) -> None:
    try:
        message, _ = receive(control)
    except Closed:
        process.wait()
        text = (registry.run_dir() / keeper.record.name / "keeper.log").read_text().strip()
        raise KernelError(
            f"the keeper of {keeper.record.name!r} did not start: {text.splitlines()[-1:]}",
            hint="see `lab doctor`",
        ) from None
    process.wait()
    raise_error(message)
    keeper.record = dataclasses.replace(keeper.record, **message)
    registry.write(keeper.record)


def _log(name: str) -> int:
    path = registry.run_dir() / name / "keeper.log"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _follow(keeper: KeeperProcess, control: socket.socket, progress: Progress | None) -> None:
    while True:
        try:
            message, _ = receive(control)
        except Closed:
            raise KernelError(
                f"the keeper of {keeper.record.name!r} ended while building: {_last_words(keeper)}",
                hint="see `lab doctor`",
            ) from None
        raise_error(message)
        if "ready" in message:
            keeper.seconds = message["seconds"]
            return
        # the provoked failure of a leak test: the keeper waits to be killed
        if "held" in message:
            return
        if progress is not None:
            progress(message["step"], message["of"])


def _last_words(keeper: KeeperProcess) -> str:
    path = registry.run_dir() / keeper.record.name / "keeper.log"
    try:
        return (path.read_text().strip().splitlines() or ["killed"])[-1]
    except FileNotFoundError:
        return "killed"


def _abort(keeper: KeeperProcess) -> None:
    """Take back a half-built lab: the kernel removes it with its keeper."""
    # until the keeper has introduced itself the record carries this process's own pid
    if keeper.record.pid != os.getpid() and (pid := _pidfd(keeper.record)) is not None:
        signal.pidfd_send_signal(pid, signal.SIGKILL)
        _wait_for_end(pid)
    keeper.close()
    registry.forget(keeper.record)


def attach(name: str) -> KeeperProcess:
    """Find the keeper of a running lab.

    Raises:
        InputError: no lab of that name is up.
        PrerequisiteError: not root.
    """
    record = registry.find(name)
    require_root()
    return KeeperProcess(record)


__all__ = ["KeeperProcess", "attach", "raise_error", "start", "unique_name"]
