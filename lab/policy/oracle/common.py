"""The words in which both models speak: packet, peer, and what one model says of one direction."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address, ip_network

from lab.policy.objects import Cluster, IPBlock, Machine, Operator, Requirement, Workload


class Place(Enum):
    """What the remote side is, seen from the pod whose policy is asked."""

    POD = "pod"
    OWN_NODE = "own node"
    OTHER_NODE = "other node"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a flow.

    Attributes:
        protocol: ``TCP``, ``UDP``, ``SCTP`` or ``ICMP``.
        port: destination port; for ICMP the type.
    """

    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Remote:
    """The remote side of a pod's traffic.

    Attributes:
        place: what it is.
        address: IPv4 address.
        pod: set where ``place`` is a pod.
    """

    place: Place
    address: str
    pod: Workload | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One packet at one pod in one direction.

    Attributes:
        cluster: pods, nodes and namespaces.
        pod: the pod whose policies are asked.
        remote: the other side.
        server: the pod that the packet goes to, whose container ports name ports.
        packet: what is sent.
    """

    cluster: Cluster
    pod: Workload
    remote: Remote
    server: Workload | None
    packet: Packet


@dataclass(slots=True)
class Opinion:
    """What policies say of a question: titles of those that isolate, allow and deny."""

    isolated_by: list[str] = field(default_factory=list)
    allowed_by: list[str] = field(default_factory=list)
    denied_by: list[str] = field(default_factory=list)


def in_block(address: str, block: IPBlock) -> bool:
    """Tell whether an address is inside a block and in none of its exceptions."""
    ip = ip_address(address)
    if ip not in ip_network(block.cidr, strict=False):
        return False
    return not any(ip in ip_network(hole, strict=False) for hole in block.excepts)


def satisfies(value: str | None, item: Requirement) -> bool:
    """Tell whether a label's value (``None``: no such label) meets a set-based requirement."""
    match item.operator:
        case Operator.IN:
            return value is not None and value in item.values
        case Operator.NOT_IN:
            return value is None or value not in item.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None


def locate(cluster: Cluster, party: Workload | Machine | str, home: str | None) -> Remote:
    """Say what a party is for a pod on node ``home``; addresses of pods and nodes are found."""
    if isinstance(party, str):
        for pod in cluster.workloads:
            if pod.address == party:
                return Remote(Place.POD, party, pod)
        for machine in cluster.machines:
            if party in machine.addresses:
                return Remote(_node_place(machine, home), party)
        return Remote(Place.OUTSIDE, party)
    if isinstance(party, Workload):
        return Remote(Place.POD, party.address, party)
    return Remote(_node_place(party, home), party.addresses[0])


def _node_place(machine: Machine, home: str | None) -> Place:
    return Place.OWN_NODE if machine.name == home else Place.OTHER_NODE
