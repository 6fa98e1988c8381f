"""Services -> frontends and backends with their numbers, node by node; nothing is written here.

A service has one frontend per address and port: cluster IP, external and load-balancer addresses
on every node, node ports on each node's own addresses. Source: Cilium's ``pkg/maps/lbmap``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import chain
from typing import Any, Generic, TypeVar

from lab.agent.store import Numbers
from lab.errors import InputError
from lab.model import (
    CLUSTER_NETWORK,
    LOAD_BALANCER_NETWORK,
    NODE_PORTS,
    Backend,
    Service,
    ServicePort,
)
from lab.names import did_you_mean
from lab.plan.inventory import Inventory, NodeFacts

FIRST_ADDRESS = 10
PROTOCOLS = {"TCP": 6, "UDP": 17}
ANY_ADDRESS = IPv4Address(0)
NUMBERS_END = 0x10000  # rev_nat_index has 16 bits

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """One backend with its number.

    Attributes:
        id: the same on every node.
        node: it runs on, empty when outside the cluster.
        terminating: keeps its flows, gets new ones only where no other is left.
        serving: still answers, whether terminating or not.
    """

    id: int
    address: IPv4Address
    port: int
    protocol: str
    node: str
    terminating: bool
    serving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """One address and port of a service.

    Attributes:
        id: ``rev_nat_index``.
        kind: ``ClusterIP``, ``NodePort``, ``ExternalIP`` or ``LoadBalancer``.
        node: the only node that has it, empty for all.
        backends: active and terminating ones.
    """

    id: int
    service: Service
    kind: str
    address: IPv4Address
    port: int
    protocol: str
    node: str
    backends: tuple[BackendFacts, ...]


def for_new_flows(backends: Iterable[BackendFacts]) -> tuple[BackendFacts, ...]:
    """Return who gets new flows: active ones, without any the terminating ones that still serve.

    So do Cilium and Kubernetes (KEP-1669): the last pod of a service ends without a gap.
    """
    found = tuple(backends)
    active = tuple(backend for backend in found if not backend.terminating)
    return active or tuple(backend for backend in found if backend.serving)


class _Free(Generic[T]):
    # candidates in order, without those in use: a lap around them once per run, not per number
    def __init__(self, used: Iterable[object], candidates: Iterable[T]) -> None:
        self.used = set(used)
        self.candidates = iter(candidates)

    def take(self, what: str) -> T:
        for candidate in self.candidates:
            if candidate not in self.used:
                return candidate
        raise InputError(f"{what}: nothing is left to choose from", hint="delete some services")


def _hosts(network: IPv4Network) -> Iterator[str]:
    last = network.num_addresses - 1
    return (str(network.network_address + offset) for offset in range(FIRST_ADDRESS, last))


class Realiser:
    """Turns services into frontends; the numbers it gives are kept in ``numbers``."""

    def __init__(self, facts: Inventory, numbers: Numbers) -> None:
        self.facts = facts
        self.numbers = numbers
        self._keys: set[str] = set()
        self._pools: dict[str, _Free[Any]] = {}

    def frontends(self, services: Iterable[Service]) -> tuple[Frontend, ...]:
        """Return the frontends of services, and forget numbers that nobody uses any more.

        Raises:
            InputError: two services want one address and port, a pod does not exist, an address
                lies outside its network, or there is none left.
        """
        self._keys.clear()
        self._pools.clear()
        found: dict[tuple[str, IPv4Address, int, str], Frontend] = {}
        for service in services:
            for frontend in self._of(service):
                key = (frontend.node, frontend.address, frontend.port, frontend.protocol)
                if key in found:
                    other = found[key].service.title
                    raise InputError(
                        f"services {other!r} and {service.title!r} share "
                        f"{frontend.address}:{frontend.port}/{frontend.protocol}",
                        hint="give one of them another address or port",
                    )
                found[key] = frontend
        # at the end: numbers of what is still described must not be given away while the rest is
        # worked out
        for numbers in (self.numbers.frontends, self.numbers.backends):
            for name in [name for name in numbers if name not in self._keys]:
                del numbers[name]
        return tuple(found.values())

    def _of(self, service: Service) -> Iterator[Frontend]:
        for port in service.port_list:
            backends = tuple(self._backends(service, port))
            for kind, address, number, node in self._places(service, port):
                key = f"{node} {address} {number} {port.protocol}"
                yield Frontend(
                    id=self._number("frontends", key),
                    service=service,
                    kind=kind,
                    address=address,
                    port=number,
                    protocol=port.protocol,
                    node=node,
                    backends=backends,
                )

    def _places(
        self, service: Service, port: ServicePort
    ) -> Iterator[tuple[str, IPv4Address, int, str]]:
        yield "ClusterIP", self.cluster_ip(service), port.port, ""
        for address in service.external_ips:
            given = self._no_pods(service, "external_ips", IPv4Address(address))
            yield "ExternalIP", given, port.port, ""
        if service.kind == "LoadBalancer":
            given = self._no_pods(service, "load_balancer_ip", self.load_balancer_ip(service))
            yield "LoadBalancer", given, port.port, ""
        if service.kind in ("NodePort", "LoadBalancer"):
            number = self.node_port(service, port)
            for node in self.facts.nodes:
                for own in (node.address, node.router):
                    yield "NodePort", own, number, node.name
            # what a process of the node itself may ask for: any of its addresses
            yield "NodePort", ANY_ADDRESS, number, ""

    def _no_pods(self, service: Service, what: str, address: IPv4Address) -> IPv4Address:
        # from-container asks no service about a pod
        for node in self.facts.nodes:
            if address in (network := self.facts.pods_network(node)):
                raise InputError(
                    f"service {service.title!r}: {what}: {address} lies in the pods' network, "
                    f"{network}",
                    hint="choose an address outside of it",
                )
        return address

    def _backends(self, service: Service, port: ServicePort) -> Iterator[BackendFacts]:
        for item in self._members(service):
            if item.port_name and item.port_name != port.name:
                continue
            # Kubernetes' conditions: what is neither has no flows and is to get none
            if not item.ready and not item.terminating:
                continue
            address, node = self._where(service, item)
            target = item.port or port.target or port.port
            # one number for an address and port, whichever services share it: conntrack knows
            # backends by it
            key = f"{address} {target} {port.protocol}"
            yield BackendFacts(
                id=self._number("backends", key),
                address=address,
                port=target,
                protocol=port.protocol,
                node=node,
                terminating=item.terminating,
                serving=item.ready,
            )

    def _members(self, service: Service) -> Iterator[Backend]:
        for item in service.backends:
            yield Backend(pod=item) if isinstance(item, str) else item
        if service.selector:
            wanted = {f"{key}={value}" for key, value in service.selector.items()}
            for pod in self.facts.pods:
                # a selector never looks beyond its namespace
                if pod.namespace == service.namespace and wanted <= set(pod.labels):
                    yield Backend(pod=pod.name)

    def _where(self, service: Service, item: Backend) -> tuple[IPv4Address, str]:
        if item.pod:
            pods = {pod.name: pod for pod in self.facts.pods}
            # pods of the default namespace go by their bare name
            pod = pods.get(item.pod.removeprefix("default/"))
            if pod is None:
                raise InputError(
                    f"service {service.title!r}: backend pod {item.pod!r} does not exist",
                    hint=did_you_mean(item.pod, pods),
                )
            return pod.address, pod.node
        address = IPv4Address(item.address)
        owner = self.facts.owner_of(address)
        if owner is None:
            raise InputError(
                f"service {service.title!r}: backend {address} is no address of this lab",
                hint="name a pod, a node's address, or the world's "
                f"{self.facts.world_client} as a backend",
            )
        return address, self._node_of(address)

    def _node_of(self, address: IPv4Address) -> str:
        for node in self.facts.nodes:
            if address in (node.address, node.router) or address in node.pod_cidr:
                return node.name
        return ""

    # -- numbers that stay -----------------------------------------------------------------------

    def _number(self, table: str, key: str) -> int:
        self._keys.add(key)
        taken: dict[str, int] = getattr(self.numbers, table)
        if key not in taken:
            # flows remember the number of a backend or service that is gone: others come first
            last = self.numbers.last.get(table, 0)
            turns = chain(range(last + 1, NUMBERS_END), range(1, last + 1))
            taken[key] = self._free(table, taken.values(), turns).take(f"numbers of {table}")
            self.numbers.last[table] = taken[key]
        return taken[key]

    def _free(self, table: str, used: Iterable[object], candidates: Iterable[T]) -> _Free[T]:
        if table not in self._pools:
            self._pools[table] = _Free(used, candidates)
        return self._pools[table]

    def cluster_ip(self, service: Service) -> IPv4Address:
        """Return a service's cluster IP: the given one, or one that stays with its name."""
        what = f"service {service.title!r}: cluster_ip"
        return self._address(what, service.title, service.cluster_ip, CLUSTER_NETWORK)

    def load_balancer_ip(self, service: Service) -> IPv4Address:
        """Return a LoadBalancer's address: the given one, or one that stays with its name."""
        if service.load_balancer_ip:
            return IPv4Address(service.load_balancer_ip)
        what = f"service {service.title!r}: load_balancer_ip"
        return self._address(what, f"lb {service.title}", "", LOAD_BALANCER_NETWORK)

    def _address(self, what: str, key: str, given: str, network: IPv4Network) -> IPv4Address:
        known = self.numbers.addresses
        if given:
            if IPv4Address(given) not in network:
                raise InputError(f"{what}: {given} is outside {network}", hint="choose one inside")
            known[key] = given
        if key not in known:
            known[key] = self._free(str(network), known.values(), _hosts(network)).take(what)
        return IPv4Address(known[key])

    def node_port(self, service: Service, port: ServicePort) -> int:
        """Return the node port of a service's port: the given one, or one that stays with it."""
        key = f"{service.title} {port.port}/{port.protocol}"
        known = self.numbers.node_ports
        if port.node_port:
            known[key] = port.node_port
        if key not in known:
            known[key] = self._free("node ports", known.values(), NODE_PORTS).take(key)
        return known[key]

    def forget(self, service: Service) -> None:
        """Free the addresses and node ports of a service that was deleted."""
        for key in (service.title, f"lb {service.title}"):
            self.numbers.addresses.pop(key, None)
        for port in service.port_list:
            self.numbers.node_ports.pop(f"{service.title} {port.port}/{port.protocol}", None)


def on_node(frontends: Iterable[Frontend], node: NodeFacts) -> tuple[Frontend, ...]:
    """Return the frontends that a node holds: those of all nodes, and its own node ports."""
    return tuple(item for item in frontends if item.node in ("", node.name))
