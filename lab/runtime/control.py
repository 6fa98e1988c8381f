"""Talking to a lab's agent: what to apply and delete, and what there is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lab import codec
from lab.agent import kubeproxy, views
from lab.agent.descriptions import Description, describe
from lab.agent.services import Realiser, on_node
from lab.agent.status import (
    AgentStatus,
    Collected,
    EndpointStatus,
    IdentityStatus,
    Parameter,
    ServiceStatus,
)
from lab.agent.store import Numbers
from lab.errors import InputError, KernelError, TopologyError
from lab.model import Pod, Service, Topology
from lab.plan import steps
from lab.plan.build import pod_steps
from lab.plan.inventory import Inventory, from_json, renewed, settled
from lab.policy.objects import Policy
from lab.runtime import registry
from lab.runtime.messages import Closed, receive, send
from lab.runtime.start import KeeperProcess, raise_error
from lab.runtime.supervisor import Life

if TYPE_CHECKING:
    from lab.runtime.live import Place

T = TypeVar("T")
_NOTHING = type(None)
"""What a request answers that only changes something."""


class AgentClient:
    """A lab's agent, from outside; connects when first asked and again after a restart."""

    def __init__(self, keeper: Callable[[], KeeperProcess]) -> None:
        self._keeper = keeper
        self._socket: socket.socket | None = None

    def ask(self, op: str, kind: type[T], /, **arguments: Any) -> T:
        """Send one request and return its result, which is a ``kind``.

        Raises:
            LabError: what the agent answered.
            KernelError: no agent is running.
        """
        try:
            # another thread may restart the agent meanwhile, and drop the connection
            connection = self._socket
            if connection is None:
                # again after a restart: the next agent listens under the same name
                connection = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.connect(str(self._keeper().root) + steps.AGENT_SOCKET)
            send(connection, {"op": op, **arguments})
            answer, _ = receive(connection)
        except (Closed, OSError) as error:
            self.close()
            raise KernelError(
                f"the agent does not answer ({error})",
                hint="the datapath goes on without it; `lab agent status` tells whether another "
                "one is coming, lab.agent.start() starts one",
            ) from None
        raise_error(answer)
        return cast(T, codec.decode(kind, answer["result"]))

    @property
    def running(self) -> bool:
        """Whether there is an agent."""
        return self.life().running

    def life(self) -> Life:
        """Return what the keeper knows of the agent, whether there is one or not."""
        return self._control("status")

    def start(self) -> None:
        """Start an agent if none is running; it adopts what is there."""
        self._control("start")

    def restart(self) -> None:
        """Kill the agent, if there is one, and start a new one."""
        self.close()
        self._control("restart")

    def kill(self) -> None:
        """Kill the agent as ``kill -9`` would; the datapath goes on without it."""
        self.close()
        self._control("kill")

    def _control(self, action: str) -> Life:
        answer, _ = self._keeper().ask(op="agent", action=action)
        return Life(**answer)

    def status(self) -> AgentStatus:
        """Return what the agent says of itself."""
        return self.ask("status", AgentStatus)

    def endpoints(self) -> tuple[EndpointStatus, ...]:
        """Return every endpoint of every node."""
        return self.ask("endpoints", tuple[EndpointStatus, ...])

    def services(self) -> tuple[ServiceStatus, ...]:
        """Return the services, in the order they were applied."""
        return self.ask("services", tuple[ServiceStatus, ...])

    def identities(self) -> tuple[IdentityStatus, ...]:
        """Return the security identities, reserved ones first."""
        return self.ask("identities", tuple[IdentityStatus, ...])

    def policies(self) -> tuple[Policy, ...]:
        """Return the policies in force."""
        return self.ask("policies", tuple[Policy, ...])

    def close(self) -> None:
        """Drop the connection; idempotent."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()


class NodeAgent:
    """The agent's view of one node."""

    def __init__(self, client: AgentClient, node: str) -> None:
        self.client = client
        self.node = node

    def endpoints(self) -> tuple[EndpointStatus, ...]:
        """Return the node's endpoints, its own first."""
        return tuple(item for item in self.client.endpoints() if item.node == self.node)

    def regenerate(self, endpoint: str | int, why: str = "asked for") -> int:
        """Exchange an endpoint's programs under load; return how often that has been done.

        Args:
            endpoint: its id, or the pod's or node's name.
            why: for the endpoint's log.
        """
        return self.client.ask("regenerate", int, node=self.node, endpoint=endpoint, why=why)

    def log(self, endpoint: str | int) -> tuple[str, ...]:
        """Return the lines of an endpoint's log: monotonic clock in seconds, then what happened."""
        return tuple(self.client.ask("log", str, node=self.node, endpoint=endpoint).splitlines())

    def config(self) -> tuple[Parameter, ...]:
        """Return the node's parameters under ``init.sh``'s names."""
        return self.client.ask("config", tuple[Parameter, ...], node=self.node)

    def prefilter(self, *networks: str) -> int:
        """Turn exactly these sources away in XDP (``Options(prefilter=True)``); return how many.

        Raises:
            InputError: one of them is no IPv4 network.
        """
        return self.client.ask("prefilter", int, node=self.node, networks=list(networks))

    def collect(self) -> Collected:
        """Remove expired conntrack and orphaned NAT entries now."""
        return self.client.ask("gc", Collected, node=self.node)


class Control:
    """The part of a lab that changes it while it runs."""

    _facts: Inventory
    topology: Topology

    @property
    def keeper(self) -> KeeperProcess:
        """The process that owns the lab."""
        raise NotImplementedError

    @cached_property
    def agent(self) -> AgentClient:
        """The lab's control plane."""
        return AgentClient(lambda: self.keeper)

    def apply(self, *items: Description) -> None:
        """Realise services, policies and namespaces; one of the same name is replaced.

        All of them are in force when this returns, and none if one is impossible.

        Raises:
            InputError: one of them is impossible.
            KernelError: no agent is running.
        """
        self.agent.ask("apply", _NOTHING, items=[codec.encode(item) for item in items])

    def delete(self, *items: Description | str) -> None:
        """Take services, policies and namespaces back, given as such or by title.

        Raises:
            InputError: one of them is not there; then nothing has been deleted.
        """
        # by title: what was applied may have been another object of that name
        self.agent.ask("delete", _NOTHING, names=[describe(item) for item in items])

    def kube_proxy(self, flavour: str, *services: Service) -> tuple[ServiceStatus, ...]:
        """Realise services as kube-proxy would, in the nodes' netfilter, and return them.

        For comparison, in a lab with ``Options(datapath=False, endpoint_routes=True,
        routing="native")``: plain routing, and the only translation is netfilter's. What was
        loaded before is replaced.

        Args:
            flavour: ``iptables`` or ``nftables``.
            services: to realise.

        Raises:
            InputError: a service is impossible, or another flavour.
        """
        if flavour not in ("iptables", "nftables"):
            raise InputError(
                f"{flavour!r} is no kube-proxy of the lab", hint="iptables or nftables"
            )
        # numbers of its own: nothing here is written into the datapath's maps
        frontends = Realiser(self._facts, Numbers()).frontends(services)
        for node in self._facts.nodes:
            mine = on_node(frontends, node)
            if flavour == "iptables":
                argv, rules = ["iptables-restore"], kubeproxy.iptables(mine)
            else:
                argv = ["nft", "-f", "-"]
                # declared, deleted, declared anew in one transaction: deleting what is not there
                # would fail
                rules = "table ip kube-proxy\ndelete table ip kube-proxy\n"
                rules += kubeproxy.nftables(mine)
            # measured: nft takes 12 s for ten thousand services on an idle machine
            self.place(node.name).run(argv, stdin=rules, timeout_s=600, check=True)
        return views.statuses(services, frontends)

    def service(self, name: str) -> ServiceStatus:
        """Return a service called ``NAME`` or ``NAMESPACE/NAME`` as it was realised.

        Raises:
            TopologyError: there is none.
        """
        title = name if "/" in name else f"default/{name}"
        for item in self.agent.services():
            if item.name == title:
                return item
        raise TopologyError(f"there is no service {name!r}", hint="apply it first")

    def add_pod(self, pod: Pod) -> None:
        """Attach one more pod: namespace, link, then its endpoint with its programs.

        Raises:
            TopologyError: the pod is impossible; nothing has changed.
            LabError: the agent could not attach it; the pod's namespace is taken back.
        """
        with self._pods_alone() as kept:
            following = replace(kept, pods=(*kept.pods, pod))
            facts = renewed(self._facts, following)
            added = facts.pod(pod.full_name)
            self._tell_keeper(following)
            todo = pod_steps(facts, facts.node(pod.node), added)
            self.keeper.ask(op="run", steps=[steps.to_json(step) for step in todo])
            try:
                self.agent.ask("pods", _NOTHING, topology=following.to_json())
            except BaseException:
                # the keeper made it before the agent was asked: nothing would know of this pod
                self.keeper.ask(op="remove", netns=added.netns)
                self._tell_keeper(kept)
                raise
            self._take_over(facts)

    def change_pod(self, pod: Pod) -> None:
        """Give a running pod other labels; its identity moves without a gap.

        Raises:
            TopologyError: there is no such pod, or it is described on another node.
            LabError: the agent could not change it.
        """
        with self._pods_alone() as kept:
            old = kept.pod(f"{pod.namespace}/{pod.name}")
            if pod.node != old.node:
                raise TopologyError(
                    f"pod {pod.full_name!r} runs on {old.node!r}", hint="remove it and add it again"
                )
            pods = tuple(replace(p, labels=pod.labels) if p == old else p for p in kept.pods)
            following = replace(kept, pods=pods)
            data = following.to_json()
            self.agent.ask("pods", _NOTHING, topology=data)
            self.keeper.ask(op="topology", topology=data)
            self._take_over(renewed(self._facts, following))

    def remove_pod(self, name: str) -> None:
        """Detach a pod: its endpoint first, then its link and namespace.

        Raises:
            TopologyError: there is no such pod, or no longer; the hint names what is near.
        """
        with self._pods_alone() as kept:
            gone = self._facts.pod(name)
            pods = tuple(pod for pod in kept.pods if pod.full_name != gone.name)
            following = replace(kept, pods=pods)
            # its worker holds the namespace, and would answer for a pod that is gone
            self._let_go(gone.name)
            self.agent.ask("pods", _NOTHING, topology=following.to_json())
            self.keeper.ask(op="remove", netns=gone.netns)
            self._tell_keeper(following)
            self._take_over(renewed(self._facts, following))

    def place(self, name: str) -> Place:
        """Return a pod, a node, ``world`` or ``underlay`` by name."""
        raise NotImplementedError

    @contextmanager
    def _pods_alone(self) -> Iterator[Topology]:
        """Let nobody else change the pods meanwhile; the topology as others have left it."""
        with registry.alone(self.keeper.record.name):
            answer, _ = self.keeper.ask(op="describe")
            now = from_json(answer)
            if now != self._facts:
                self._take_over(now)
            # those that were given without address keep theirs when the list of pods changes
            yield settled(self._facts)
            record = replace(self.keeper.record, pods=tuple(pod.name for pod in self._facts.pods))
            registry.write(record)
            self.keeper.record = record

    def _tell_keeper(self, topology: Topology) -> None:
        self.keeper.ask(op="topology", topology=topology.to_json())

    def _take_over(self, facts: Inventory) -> None:
        self.topology = facts.topology
        self._facts = facts

    def _let_go(self, name: str) -> None:
        raise NotImplementedError
