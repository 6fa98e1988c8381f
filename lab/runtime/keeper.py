"""The keeper: one process that owns a lab. When it ends, however, the kernel removes the lab.

It is exec'd by :mod:`lab.runtime.start`, becomes the init of its own PID namespace with private
mounts, runs the plan, and then serves requests over a unix socket. It never starts a thread
that outlives a step, so that its children can be forked safely.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.errors import KernelError, LabError
from lab.kernel import cgroup, mounts
from lab.kernel.netns import NetworkNamespace
from lab.kernel.syscalls import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    raise_file_limit,
    set_process_name,
    unshare,
)
from lab.model import Topology
from lab.plan import steps
from lab.plan.inventory import Inventory, inventory, renewed, to_json
from lab.runtime import registry
from lab.runtime.messages import Closed, defect_message, error_message, receive, send
from lab.runtime.supervisor import Child, Supervisor
from lab.runtime.version import code_version

SERVICES = (
    "lab.traffic.worker",
    "lab.observe.collector",
    "lab.observe.own_service",
    "lab.observe.told",
    "lab.observe.function_collector",
    "lab.agent.main",
    "lab.wire.service",
    "lab.k8s.containers",
)
"""Modules a keeper may run as a child: each has ``serve(connection, context)``."""


class Context:
    """What a child process of the keeper finds: it has already entered its target.

    Attributes:
        facts: all names and addresses of the lab.
        target: name of the node or pod it runs in, empty for the keeper's own view.
        namespaces: every network namespace of the lab by name.
        arguments: what the caller passed.
    """

    def __init__(
        self,
        facts: Inventory,
        target: str,
        namespaces: dict[str, NetworkNamespace],
        arguments: dict[str, Any],
    ) -> None:
        self.facts = facts
        self.target = target
        self.namespaces = namespaces
        self.arguments = arguments


class Keeper:
    """State of the keeper process after it entered its namespaces."""

    def __init__(
        self, control: socket.socket, request: dict[str, Any], listener: socket.socket
    ) -> None:
        self.control = control
        self.listener = listener
        self.request = request
        self.record = registry.Record(
            **{**request["record"], "nodes": (), "pods": ()},
        )
        self.facts = inventory(Topology.from_json(request["topology"]))
        self.selector = selectors.DefaultSelector()
        self.clients: list[socket.socket] = []
        self.views: dict[str, int] = {}
        self.running = True
        self.agent = Supervisor(self._fork_agent)
        self.prompting = 0
        self.seconds: dict[str, tuple[float, int]] = {}
        self.engine = _engine(request["engine"], self)
        self.engine.on_namespace = self._new_namespace
        self.engine.make_bpffs = self._make_bpffs

    # -- building ---------------------------------------------------------------------------

    def build(self) -> None:
        """Run the plan, reporting progress; stops when the caller goes away meanwhile."""
        from lab.plan import plan

        todo = plan(self.facts.topology)
        fault = self.request.get("fault") or {}
        # clang's objects are verified in threads meanwhile: loading takes longer than all
        # namespaces and links
        self.engine.prepare(todo)
        for number, step in enumerate(todo, 1):
            begun = time.perf_counter()
            self.engine.step(step)
            self._timed(step, time.perf_counter() - begun)
            # a message for each step would cost more than many of the steps
            if number % 16 == 0 or number == len(todo):
                send(self.control, {"step": number, "of": len(todo)})
                self._refuse_to_work_for_nobody()
            if fault.get("after") == number:
                self._provoked(fault["kind"], number)
        self.engine.finish()

    def _timed(self, step: steps.Step, seconds: float) -> None:
        kind = type(step).__name__
        total, count = self.seconds.get(kind, (0.0, 0))
        self.seconds[kind] = (total + seconds, count + 1)

    def _provoked(self, kind: str, number: int) -> None:
        # The leak tests ask for a failure after each single step.
        if kind == "raise":
            raise KernelError(f"provoked after step {number}", hint="a test asked for it")
        send(self.control, {"held": number})
        with contextlib.suppress(Closed):
            receive(self.control)

    def _refuse_to_work_for_nobody(self) -> None:
        # a look without taking: an empty answer means that the other end is closed
        with contextlib.suppress(BlockingIOError):
            if not self.control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise Closed("the caller went away while the lab was being built")

    def _new_namespace(self, step: steps.AddNamespace, namespace: NetworkNamespace) -> None:
        mounts.name_netns(namespace.fd, step.where)
        if step.role == "node":
            self._make_bpffs(step.where)
        if step.node:
            parts = (step.node,) if step.role == "node" else (step.node, step.where)
            group = Path(self.record.cgroup, *parts)
            cgroup.create(group)
            if (process := self.engine.process_of(step.where)) is not None:
                cgroup.move(process, group)
        self.engine.entered_by_shell(step)

    def _make_bpffs(self, node: str) -> None:
        # Loads begin before their node's turn in the plan, so this is asked for twice.
        if not Path(steps.NODES_DIR, node).exists():
            mounts.make_bpffs(steps.bpffs(node))
            Path(steps.globals_dir(node)).mkdir(parents=True)
            Path(steps.NODES_DIR, node, "cilium").mkdir()

    # -- serving ----------------------------------------------------------------------------

    def start_prompt(self, fds: tuple[int, ...]) -> int:
        """Fork the engine's prompt onto a terminal; the lab ends with it."""
        child = os.fork()
        if child == 0:
            try:
                self._leave_the_keeper_alone()
                self.engine.prompt((fds[0], fds[1], fds[2]))
            except Exception:  # noqa: BLE001 - the prompt is the last thing this process does
                traceback.print_exc()
            finally:
                os._exit(0)
        for fd in fds:
            os.close(fd)
        return child

    def serve(self) -> None:
        """Answer requests until told to stop, or until an attached caller is gone."""
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        if self.request["attached"]:
            self.selector.register(self.control, selectors.EVENT_READ, self._caller_gone)
        else:
            self.control.close()
        wake, alarm = socket.socketpair()
        wake.setblocking(False)
        alarm.setblocking(False)
        # Python runs handlers between bytecodes only: the descriptor is what ends the wait
        signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "running", False))
        # Ctrl-C at the caller's terminal is the caller's to handle
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.selector.register(wake, selectors.EVENT_READ, self._woken)
        self._reap()  # whoever ended before there was somebody to wake
        while self.running:
            for key, _ in self.selector.select(self.agent.wait_s()):
                key.data(key.fileobj)
            self.agent.tick()

    def _woken(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            wake.recv(4096)
        self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            # whatever ends in this PID namespace ends up with its init, orphans of commands
            # included
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                self.agent.reaped(*ended)
                if ended[0] == self.prompting:
                    self.running = False

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        self.clients.append(client)
        self.selector.register(client, selectors.EVENT_READ, self._serve_client)

    def _caller_gone(self, control: socket.socket) -> None:
        if not control.recv(1, socket.MSG_PEEK):
            self.running = False

    def _serve_client(self, client: socket.socket) -> None:
        try:
            request, fds = receive(client)
            # no request brings descriptors: what a client sends all the same is not to pile up
            for fd in fds:
                os.close(fd)
            try:
                answer, passed = self._answer(request)
            except LabError as error:
                answer, passed = error_message(error), ()
            except Exception as error:  # noqa: BLE001 - one request's defect must not end the lab
                traceback.print_exc()
                answer, passed = defect_message(error), ()
            send(client, answer, passed)
            for fd in passed:
                os.close(fd)
        except Closed:
            self.selector.unregister(client)
            self.clients.remove(client)
            client.close()

    def _answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
        match request["op"]:
            case "describe":
                return to_json(self.facts), ()
            case "spawn":
                fd = self.spawn(
                    request["service"], request.get("target", ""), request.get("arguments", {})
                )
                return {"ok": True}, (fd,)
            case "enter":
                return self._enter(request["target"]), ()
            case "run":
                for step in request["steps"]:
                    self.engine.step(steps.from_json(step))
                return {"ok": True}, ()
            case "topology":
                # identities stay with their labels when pods come and go
                self.facts = renewed(self.facts, Topology.from_json(request["topology"]))
                return {"ok": True}, ()
            case "agent":
                return self._control_agent(request["action"]), ()
            case "remove":
                self.engine.require_namespace(request["netns"])
                # names and views first: each of them holds the namespace, and it goes with its last
                # holder
                mounts.forget_netns(request["netns"])
                self._forget_view(request["netns"])
                self.engine.remove_namespace(request["netns"])
                return {"ok": True}, ()
            case "timings":
                loads = self.engine.datapath.load_seconds
                return {"steps": self.seconds, "load_seconds": loads}, ()
            case "interrupt":
                if self.prompting:
                    os.kill(self.prompting, signal.SIGINT)
                return {"ok": True}, ()
            case "down":
                self.running = False
                return {"ok": True}, ()
        return {"error": "InputError", "message": f"unknown request {request['op']!r}"}, ()

    def place_of(self, target: str) -> tuple[str, str | None, str]:
        """Return a target's namespace, its node (None in underlay and world) and its cgroup.

        Raises:
            TopologyError: no such node or pod.
        """
        for node in self.facts.nodes:
            if node.name == target:
                return node.name, node.name, str(Path(self.record.cgroup, node.name))
        if target in ("underlay", "world"):
            return target, None, self.record.cgroup
        pod = self.facts.pod(target)
        return pod.netns, pod.node, str(Path(self.record.cgroup, pod.node, pod.netns))

    # -- the agent --------------------------------------------------------------------------

    def _fork_agent(self) -> Child:
        """Start the control plane; requests wait in its socket until it has taken over."""
        # the name of an agent that was killed is still bound
        Path(steps.AGENT_SOCKET).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(steps.AGENT_SOCKET)
            listener.listen(64)
            arguments = {"listener": listener.fileno(), "objects": self.request["objects"]}
            return self._fork("lab.agent.main", "", arguments)

    def _control_agent(self, action: str) -> dict[str, Any]:
        self._reap()
        if action in ("kill", "restart"):
            self.agent.stop()
        if action in ("start", "restart"):
            if not self.facts.topology.options.datapath:
                raise LabError("a lab without datapath has no agent", hint="set datapath=True")
            self.agent.start()
        return asdict(self.agent.life())

    # -- children ---------------------------------------------------------------------------

    def spawn(self, service: str, target: str, arguments: dict[str, Any]) -> int:
        """Fork a child that runs ``service`` inside ``target``; return the caller's end.

        Raises:
            LabError: unknown service or target.
        """
        return self._fork(service, target, arguments).connection

    def _fork(self, service: str, target: str, arguments: dict[str, Any]) -> Child:
        if service not in SERVICES:
            raise LabError(f"unknown service {service!r}", hint=f"known: {', '.join(SERVICES)}")
        place = self.place_of(target) if target else None
        # nothing but this pair ties a child to its caller: closing the end is what ends the child
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become_child(theirs, service, target, place, arguments)
        theirs.close()
        return Child(pid, ours.detach())

    def _become_child(
        self,
        connection: socket.socket,
        service: str,
        target: str,
        place: tuple[str, str | None, str] | None,
        arguments: dict[str, Any],
    ) -> None:
        status = 1
        try:
            self._leave_the_keeper_alone()
            if place:
                self._enter_place(*place)
            module = importlib.import_module(service)
            context = Context(self.facts, target, self.engine.namespaces, arguments)
            module.serve(connection, context)
            status = 0
        except Closed:
            status = 0
        except LabError as error:
            with contextlib.suppress(Closed):
                send(connection, error_message(error))
        except Exception as error:  # noqa: BLE001 - a defect of ours: told in the keeper's log
            traceback.print_exc()
            with contextlib.suppress(Closed):
                send(connection, defect_message(error))
        finally:
            # without atexit handlers and buffers: those belong to the keeper it was forked from
            os._exit(status)

    def _leave_the_keeper_alone(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        self.selector.close()
        self.listener.close()
        self.control.close()
        for client in self.clients:
            client.close()
        if self.agent.child is not None:
            os.close(self.agent.child.connection)

    def _enter_place(self, netns: str, node: str | None, group: str) -> None:
        # while the host's control groups are still in view: the next step changes the mounts
        cgroup.move_self(Path(group))
        bpffs = steps.bpffs(node) if node else None
        state = str(Path(steps.NODES_DIR, node, "cilium")) if node else None
        mounts.enter_view(self.engine.namespaces[netns].fd, bpffs, state)

    def _enter(self, target: str) -> dict[str, Any]:
        """Say how another process gets into a target: fds below ``/proc/KEEPER/fd``."""
        netns, node, group = self.place_of(target)
        if netns not in self.views:
            self.views[netns] = self._make_view(netns, node, group)
        return {
            "net": self.engine.namespaces[netns].fd,
            "mnt": self.views[netns],
            "cgroup": group,
        }

    def _make_view(self, netns: str, node: str | None, group: str) -> int:
        ready, tell = os.pipe()
        done, finish = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(finish)
                self._enter_place(netns, node, group)
                os.write(tell, b"1")
                # its mount namespace goes with it: it waits until that has been opened
                os.read(done, 1)
            finally:
                os._exit(0)
        for fd in (tell, done):
            os.close(fd)
        # an empty answer: the child ended before it could write
        ok = os.read(ready, 1)
        try:
            if not ok:
                raise KernelError(f"view of {netns!r}: could not be made", hint="see `lab doctor`")
            # a mount namespace has no name: the descriptor outlives the child that made it
            return os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(ready)
            os.close(finish)

    def _forget_view(self, netns: str) -> None:
        fd = self.views.pop(netns, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """End every child, then let go of everything the lab consists of."""
        with contextlib.suppress(ProcessLookupError):
            # -1 reaches only this PID namespace: whatever was ever started inside the lab
            os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        self.engine.close()
        # the kernel removes only an empty one: after everything that ran in it
        cgroup.remove(Path(self.record.cgroup))


def _engine(name: str, keeper: Keeper) -> Any:
    module = importlib.import_module(f"lab.engines.{name}")
    objects = {name: Path(path) for name, path in keeper.request["objects"].items()}
    return module.engine(objects)


def _introduce(control: socket.socket, request: dict[str, Any]) -> None:
    """Tell the caller who owns the lab, before ``/proc`` becomes the lab's own."""
    # the number in the machine's PID namespace, which callers know; inside it is 1
    own = Path("/proc/self/stat").read_text()
    pid = int(own.split()[0])
    started = registry.start_time(pid)
    group = cgroup.unified_root() / f"lab-{request['record']['name']}-{pid}-{started}"
    request["record"] |= {"pid": pid, "start_time": started, "cgroup": str(group)}
    hello = {"pid": pid, "start_time": started, "cgroup": str(group), "code": code_version()}
    send(control, hello)


def main() -> None:
    """Become a lab's keeper; the control socket is file descriptor ``argv[1]``."""
    control = socket.socket(fileno=int(sys.argv[1]))
    request, fds = receive(control)
    listener = socket.socket(fileno=fds[0])
    # before anything else exists: children and mounts made earlier would be outside
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    # the fork is what enters the new PID namespace, as its init
    if os.fork():
        os._exit(0)
    # Ctrl-C at the caller's terminal is not meant for the lab
    os.setsid()
    # every namespace, view, map and program is a descriptor
    raise_file_limit()
    set_process_name(f"lab:{request['record']['name']}")
    _introduce(control, request)
    started = time.perf_counter()
    keeper = None
    try:
        mounts.make_private()
        keeper = Keeper(control, request, listener)
        cgroup.create(Path(keeper.record.cgroup))
        keeper.build()
        if request.get("prompt"):
            keeper.prompting = keeper.start_prompt(fds[1:])
        if keeper.facts.topology.options.datapath:
            keeper.agent.start()
        send(control, {"ready": True, "seconds": time.perf_counter() - started})
        keeper.serve()
    except Closed:
        pass
    except LabError as error:
        with contextlib.suppress(Closed):
            send(control, error_message(error))
    except Exception:  # noqa: BLE001 - a defect of ours: told in the keeper's log
        traceback.print_exc()
    finally:
        if keeper is not None:
            keeper.close()
        os._exit(0)


if __name__ == "__main__":
    main()
