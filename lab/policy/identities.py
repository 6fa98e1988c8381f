"""Security identities: numbers for sets of labels, reserved, allocated, and for networks.

Equal sets of labels share a number; numbers stay as long as somebody uses them, so that a change
of one pod never renumbers another. Source: Cilium ``pkg/identity``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import TypeVar

from lab.errors import InputError
from lab.names import RESERVED_IDENTITIES
from lab.policy import labels as names
from lab.policy.objects import PROTOCOL_NUMBERS, Cluster, Semantics, Workload
from lab.policy.rules import POD_BLOCK

K = TypeVar("K", bound=Hashable)

# 0 is what a packet has whose sender nobody knows: no set of labels stands for it
RESERVED = MappingProxyType({name: n for name, n in RESERVED_IDENTITIES.items() if n})
# bounds as in Cilium's pkg/identity/numericidentity.go
FIRST_ALLOCATED = 256
LAST_ALLOCATED = 65535
CIDR_SCOPE = 1 << 24
"""Identities of networks are local to a node and begin at this number + 1."""

RANGES = MappingProxyType(
    {
        "identities": (FIRST_ALLOCATED, LAST_ALLOCATED),
        "networks": (CIDR_SCOPE + 1, CIDR_SCOPE + 0xFFFF),
    }
)
"""First and last number of each kind."""

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
    # part of every identity in Cilium, one cluster or many: selectors may name them
    found.add(f"{names.CLUSTER}=default")
    found.add(f"{names.SERVICE_ACCOUNT}={pod.service_account}")
    for key, value in cluster.namespace_labels(pod.namespace).items():
        found.add(f"{names.NAMESPACE_LABELS}{key}={value}")
    if not cilium:
        address = int(IPv4Address(pod.address))
        # Kubernetes lets an ipBlock match pods, Cilium's maps know identities only: pods inside and
        # outside a block need different ones
        for block in refinement.blocks:
            first, last = _span(block)
            if first <= address <= last:
                found.add(f"{POD_BLOCK}{block}=")
        for port in pod.ports:
            number = PROTOCOL_NUMBERS.get(port.protocol, 0)
            if (port.name, number) in refinement.port_names:
                found.add(f"port:{port.name}/{number}={port.number}")
    return tuple(sorted(found))


def cidr_labels(network: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the sorted labels of a network's identity: all known networks that contain it."""
    return _cidr_labels(network, {_span(cidr): cidr for cidr in known})


def _cidr_labels(network: str, known: Mapping[tuple[int, int], str]) -> tuple[str, ...]:
    # networks that contain another begin where a longer or shorter prefix of it does
    low, high = _span(network)
    masks = (0xFFFFFFFF >> length for length in range(33))
    spans = {(low & ~mask, low | mask) for mask in masks if low | mask >= high}
    around = [known[span] for span in spans if span in known]
    found = {f"cidr:{cidr}=" for cidr in around} | {f"{POD_BLOCK}{cidr}=" for cidr in around}
    return tuple(sorted(found | {"reserved:world="}))


@lru_cache(maxsize=65536)
def _span(cidr: str) -> tuple[int, int]:
    network = IPv4Network(cidr)
    return int(network.network_address), int(network.broadcast_address)


@dataclass(slots=True)
class IdentityTable:
    """Numbers in use: which set of labels, and which network, has which number.

    A number that became free is given out again only after all others: packets under way and
    entries about to be removed still carry it.

    Attributes:
        allocated: sorted labels -> number.
        networks: CIDR -> number.
        last: the number given last of each kind of `RANGES`; whoever makes a table
            that goes on with another's numbers hands it over.
    """

    allocated: dict[tuple[str, ...], int] = field(default_factory=dict)
    networks: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)

    def update(
        self, label_sets: Iterable[tuple[str, ...]], cidrs: Iterable[str]
    ) -> Mapping[int, Identity]:
        """Number what is new, forget what is gone, and return every identity by number.

        New sets are numbered in sorted order, so that two runs arrive at the same numbers.

        Raises:
            InputError: more than 65 280 different sets of labels, or 65 535 networks.
        """
        wanted = sorted(set(label_sets))
        self.allocated = self._renew("identities", wanted, self.allocated)
        known = sorted(set(cidrs) - {"0.0.0.0/0"}, key=_span)
        self.networks = self._renew("networks", known, self.networks)
        return self._all(frozenset(cidrs))

    def _renew(self, kind: str, wanted: Sequence[K], have: Mapping[K, int]) -> dict[K, int]:
        first, last = RANGES[kind]
        found = {key: have[key] for key in wanted if key in have}
        if len(wanted) > last - first + 1:
            raise InputError(
                f"{len(wanted)} identities do not fit the numbers {first}-{last}",
                hint="use fewer different sets of labels, or fewer networks",
            )
        used = set(have.values())
        candidate = self.last.get(kind) or max(used, default=first - 1)
        for key in wanted:
            if key in found:
                continue
            candidate = candidate + 1 if candidate < last else first
            while candidate in used:
                candidate = candidate + 1 if candidate < last else first
            found[key] = candidate
            used.add(candidate)
        self.last[kind] = candidate
        return found

    def _all(self, cidrs: frozenset[str]) -> dict[int, Identity]:
        found = {
            number: Identity(number, (f"reserved:{name}=",)) for name, number in RESERVED.items()
        }
        # an address that no longer prefix holds is world, so 0.0.0.0/0 is a label of world
        if "0.0.0.0/0" in cidrs:
            found[2] = Identity(2, cidr_labels("0.0.0.0/0", ["0.0.0.0/0"]))
        for key, number in self.allocated.items():
            found[number] = Identity(number, key)
        spans = {_span(cidr): cidr for cidr in cidrs}
        for network, number in self.networks.items():
            found[number] = Identity(number, _cidr_labels(network, spans))
        return found
