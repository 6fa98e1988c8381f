"""The agent as a process: one loop over its socket, its clients and its timers."""

from __future__ import annotations

import os
import selectors
import socket
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lab import codec
from lab.agent import nodeconfig, tables, views
from lab.agent.agent import Agent
from lab.agent.descriptions import Description
from lab.agent.store import State
from lab.errors import InputError, LabError
from lab.kernel.bpfmap import BpfMap
from lab.kernel.bpfring import PerfReader
from lab.kernel.messages import Closed, receive, send
from lab.kernel.netns import NetworkNamespace
from lab.model import Topology
from lab.plan.inventory import Inventory, NodeFacts
from lab.plan.steps import globals_dir

SIGNALS = "cilium_signals"
"""Where the datapath says that conntrack or NAT fills up."""


class Context(Protocol):
    """What the keeper gives its children."""

    facts: Inventory
    namespaces: dict[str, NetworkNamespace]
    arguments: dict[str, Any]


def serve(connection: socket.socket, context: Context) -> None:
    """Take over the lab's control plane and answer requests until the keeper goes.

    Args:
        connection: to the keeper; its end ends the agent.
        context: ``arguments`` has ``listener``, a listening socket's descriptor, and ``objects``,
            compiled objects by name.
    """
    paths = {name: Path(path) for name, path in context.arguments["objects"].items()}
    # Sockets of its own: netlink answers on inherited ones would mix with the keeper's.
    namespaces = {
        node.name: NetworkNamespace.adopt(
            node.name, f"/proc/self/fd/{context.namespaces[node.name].fd}"
        )
        for node in context.facts.nodes
    }
    agent = Agent(context.facts, paths, namespaces, State.load())
    agent.adopt()
    listener = socket.socket(fileno=context.arguments["listener"])
    Loop(agent, connection, listener).run()


class Loop:
    """Waits for the keeper, for clients and for the agent's timers."""

    def __init__(self, agent: Agent, keeper: socket.socket, listener: socket.socket) -> None:
        self.agent = agent
        self.selector = selectors.DefaultSelector()
        self.selector.register(keeper, selectors.EVENT_READ, self._keeper)
        self.selector.register(listener, selectors.EVENT_READ, self._accept)
        for node in agent.facts.nodes:
            pin = Path(globals_dir(node.name), SIGNALS)
            with BpfMap.from_pin(pin) as signals:
                ring = PerfReader(signals, pages=1)
            collect = partial(self._signalled, node, ring)
            self.selector.register(ring, selectors.EVENT_READ, collect)

    def run(self) -> None:
        """Serve until the keeper closes its end.

        Raises:
            Closed: it did.
        """
        while True:
            wait_s = max(self.agent.idle(), 0.0)
            for key, _ in self.selector.select(wait_s):
                key.data(key.fileobj)

    def _signalled(self, node: NodeFacts, ring: PerfReader, _: object) -> None:
        # "a table fills up": many say so at once, one collection answers them all
        if ring.read():
            self.agent.collect(node)

    def _keeper(self, keeper: socket.socket) -> None:
        receive(keeper)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        self.selector.register(client, selectors.EVENT_READ, self._client)

    def _client(self, client: socket.socket) -> None:
        try:
            request, _ = receive(client)
        except (Closed, ValueError, OSError):
            # gone, or no client of ours: what it said is not even JSON
            self._forget(client)
            return
        answer = self._answered(request)
        try:
            send(client, answer)
        except Closed:
            self._forget(client)

    def _forget(self, client: socket.socket) -> None:
        self.selector.unregister(client)
        client.close()

    def _answered(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"result": self.answer(request)}
        except LabError as error:
            kind, message, hint = type(error).__name__, error.message, error.hint
        except Exception as error:  # noqa: BLE001 - a defect met by one request ends nothing else
            traceback.print_exc()
            self._start_over()
            kind, message = "LabError", f"the agent could not: {type(error).__name__}: {error}"
            hint = "a defect: see the lab's keeper.log; everything is as it was before"
        return {"error": kind, "message": message, "hint": hint}

    def _start_over(self) -> None:
        """Be what the saved state says, as the next agent would: nothing half-done stays."""
        old = self.agent
        self.agent = Agent(old.facts, old.paths, old.namespaces, State.load())
        self.agent.adopt(again=True)

    def answer(self, request: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Carry out one request and return its JSON-ready result.

        Raises:
            LabError: what went wrong; nothing else of the agent has changed.
        """
        operation = _OPERATIONS.get(request.get("op", ""))
        if operation is None:
            raise InputError(
                f"unknown request {request.get('op')!r}", hint=f"known: {', '.join(_OPERATIONS)}"
            )
        return codec.encode(operation(self.agent, request))


def _apply(agent: Agent, request: Mapping[str, Any]) -> object:
    agent.apply(codec.decode(tuple[Description, ...], request["items"]))
    return None


def _delete(agent: Agent, request: Mapping[str, Any]) -> object:
    agent.delete(request["names"])
    return None


def _pods(agent: Agent, request: Mapping[str, Any]) -> object:
    agent.change_pods(Topology.from_json(request["topology"]))
    return None


def _regenerate(agent: Agent, request: Mapping[str, Any]) -> object:
    target = agent.endpoints.find(request["node"], str(request["endpoint"]))
    return agent.endpoints.regenerate(target, request.get("why", "asked for"))


def _log(agent: Agent, request: Mapping[str, Any]) -> object:
    status = views.endpoint(agent, request["node"], str(request["endpoint"]))
    return agent.endpoints.read_log(status.node, status.id)


def _gc(agent: Agent, request: Mapping[str, Any]) -> object:
    return agent.collect(agent.facts.node(request["node"]))


def _prefilter(agent: Agent, request: Mapping[str, Any]) -> object:
    return tables.prefilter(agent.facts.node(request["node"]).name, request["networks"])


def _config(agent: Agent, request: Mapping[str, Any]) -> object:
    return nodeconfig.parameters(agent.facts, agent.facts.node(request["node"]))


_OPERATIONS: dict[str, Callable[[Agent, Mapping[str, Any]], object]] = {
    "status": lambda agent, _: agent.status(os.getpid()),
    "apply": _apply,
    "delete": _delete,
    "pods": _pods,
    "regenerate": _regenerate,
    "log": _log,
    "gc": _gc,
    "config": _config,
    "prefilter": _prefilter,
    "endpoints": lambda agent, _: tuple(agent.endpoints.all()),
    "services": lambda agent, _: views.services(agent),
    "identities": lambda agent, _: views.identities(agent),
    "policies": lambda agent, _: tuple(
        rule for rules in agent.state.policies.values() for rule in rules
    ),
}
