"""Security identities: numbers for sets of labels, reserved, allocated, and for networks.

Equal sets of labels share a number; numbers stay as long as somebody uses them, so that a change
of one pod never renumbers another. Source: Cilium ``pkg/identity`` (facts 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import TypeVar

from lab.errors import InputError
from lab.policy import labels as names
from lab.policy.objects import Cluster, Semantics, Workload
from lab.policy.rules import POD_BLOCK

K = TypeVar("K")

RESERVED = MappingProxyType(
    {
        "host": 1,
        "world": 2,
        "unmanaged": 3,
        "health": 4,
        "init": 5,
        "remote-node": 6,
        "kube-apiserver": 7,
        "ingress": 8,
    }
)
FIRST_ALLOCATED = 256
LAST_ALLOCATED = 65535
CIDR_SCOPE = 1 << 24
"""Identities of networks are local to a node and begin at this number + 1."""

_GENERATED = frozenset(
    {
        "pod-template-hash",
        "controller-revision-hash",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
    }
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A number and the sorted labels it stands for (``source:key=value``)."""

    number: int
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refinement:
    """What policies distinguish beyond labels; becomes part of a pod's identity.

    Attributes:
        blocks: networks of IP blocks that may match pods.
        port_names: named ports with protocol number that egress rules use.
    """

    blocks: frozenset[str] = frozenset()
    port_names: frozenset[tuple[str, int]] = frozenset()


def pod_labels(
    cluster: Cluster, pod: Workload, semantics: Semantics, refinement: Refinement
) -> tuple[str, ...]:
    """Return the sorted identity labels of a pod.

    With ``Semantics.K8S`` they include the IP blocks that its address lies in and the numbers of
    its named ports, as far as policies use them, so that pods which policies tell apart have
    different identities. With ``Semantics.CILIUM`` labels that controllers generate are left out,
    as Cilium's default label filter does.
    """
    cilium = semantics is Semantics.CILIUM
    found = {
        f"k8s:{key}={value}"
        for key, value in pod.labels.items()
        if not (cilium and key in _GENERATED)
    }
    found.add(f"{names.NAMESPACE}={pod.namespace}")
    found.add(f"{names.CLUSTER}=default")
    found.add(f"{names.SERVICE_ACCOUNT}={pod.service_account}")
    for key, value in cluster.namespace_labels(pod.namespace).items():
        found.add(f"{names.NAMESPACE_LABELS}{key}={value}")
    if not cilium:
        address = IPv4Address(pod.address)
        found |= {f"{POD_BLOCK}{b}=" for b in refinement.blocks if address in IPv4Network(b)}
        protocols = {"TCP": 6, "UDP": 17, "SCTP": 132}
        for port in pod.ports:
            number = protocols.get(port.protocol, 0)
            if (port.name, number) in refinement.port_names:
                found.add(f"port:{port.name}/{number}={port.number}")
    return tuple(sorted(found))


def cidr_labels(network: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the sorted labels of a network's identity: all known networks that contain it."""
    inner = IPv4Network(network)
    around = [cidr for cidr in known if inner.subnet_of(IPv4Network(cidr))]
    found = {f"cidr:{cidr}=" for cidr in around} | {f"{POD_BLOCK}{cidr}=" for cidr in around}
    return tuple(sorted(found | {"reserved:world="}))


@dataclass(slots=True)
class IdentityTable:
    """Numbers in use; the only state is which set of labels has which number."""

    allocated: dict[tuple[str, ...], int] = field(default_factory=dict)
    networks: dict[str, int] = field(default_factory=dict)

    def update(
        self, label_sets: Iterable[tuple[str, ...]], cidrs: Iterable[str]
    ) -> Mapping[int, Identity]:
        """Number what is new, forget what is gone, and return every identity by number.

        New sets are numbered in sorted order, so that two runs arrive at the same numbers.

        Raises:
            InputError: more than 65 280 different sets of labels.
        """
        wanted = sorted(set(label_sets))
        self.allocated = {key: self.allocated[key] for key in wanted if key in self.allocated}
        used = set(self.allocated.values())
        self.allocated.update(_number(wanted, self.allocated, used, FIRST_ALLOCATED))
        known = sorted(set(cidrs) - {"0.0.0.0/0"}, key=_network_order)
        self.networks = {key: self.networks[key] for key in known if key in self.networks}
        used = set(self.networks.values())
        self.networks.update(_number(known, self.networks, used, CIDR_SCOPE + 1))
        if len(self.allocated) > LAST_ALLOCATED - FIRST_ALLOCATED + 1:
            raise InputError(
                f"{len(self.allocated)} different sets of labels do not fit the identities "
                f"{FIRST_ALLOCATED}-{LAST_ALLOCATED}",
                hint="take labels off that no policy needs",
            )
        return self._all(frozenset(cidrs))

    def _all(self, cidrs: frozenset[str]) -> dict[int, Identity]:
        found = {
            number: Identity(number, (f"reserved:{name}=",)) for name, number in RESERVED.items()
        }
        # an address that no longer prefix holds is world, so 0.0.0.0/0 is a label of world
        if "0.0.0.0/0" in cidrs:
            found[2] = Identity(2, cidr_labels("0.0.0.0/0", ["0.0.0.0/0"]))
        for key, number in self.allocated.items():
            found[number] = Identity(number, key)
        for network, number in self.networks.items():
            found[number] = Identity(number, cidr_labels(network, cidrs))
        return found


def _network_order(cidr: str) -> tuple[int, int]:
    network = IPv4Network(cidr)
    return int(network.network_address), network.prefixlen


def _number(wanted: Iterable[K], have: Mapping[K, int], used: set[int], first: int) -> dict[K, int]:
    found: dict[K, int] = {}
    candidate = first
    for key in wanted:
        if key in have:
            continue
        while candidate in used:
            candidate += 1
        found[key] = candidate
        used.add(candidate)
    return found
