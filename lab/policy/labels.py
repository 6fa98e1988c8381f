"""Labels with their sources, as security identities carry them, and matching against them.

A label is ``source:key=value``: ``k8s:app=web`` came from a manifest, ``reserved:host=`` from
the datapath, ``cidr:10.0.0.0/8=`` from an address. Source: Cilium ``pkg/labels``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lab.policy.objects import Operator, Requirement, Selector

NAMESPACE = "k8s:io.kubernetes.pod.namespace"
"""Key of the label that every pod's identity carries: the name of its namespace."""

NAMESPACE_LABELS = "k8s:io.cilium.k8s.namespace.labels."
"""Prefix under which the labels of the namespace appear in a pod's identity."""

CLUSTER = "k8s:io.cilium.k8s.policy.cluster"
SERVICE_ACCOUNT = "k8s:io.cilium.k8s.policy.serviceaccount"

SOURCES = frozenset({"k8s", "any", "reserved", "cidr", "container", "unspec"})


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """A conjunction of requirements on sourced keys; ``any:key`` matches every source."""

    requirements: tuple[Requirement, ...] = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a label index (see :func:`index`) meets every requirement."""
        return all(_holds(requirement, labels) for requirement in self.requirements)

    @property
    def needs(self) -> str | None:
        """A key without which nothing is selected; None where there is no such key."""
        asked = (Operator.EXISTS, Operator.IN)
        return next((item.key for item in self.requirements if item.operator in asked), None)


def _holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    if requirement.operator is Operator.EXISTS:
        return value is not None
    if requirement.operator is Operator.DOES_NOT_EXIST:
        return value is None
    if requirement.operator is Operator.IN:
        return value in requirement.values
    # NotIn also holds where the key is absent: apimachinery labels.Requirement.Matches
    return value is None or value not in requirement.values


def index(labels: Iterable[str]) -> dict[str, str]:
    """Return ``source:key`` -> value for labels, with every key under ``any:`` as well."""
    found: dict[str, str] = {}
    for label in labels:
        key, _, value = label.partition("=")
        found[key] = value
        source, _, bare = key.partition(":")
        # Cilium's `any` means every source that a pod's labels come from; a network's label is not
        # meant
        if source in ("k8s", "container", "reserved"):
            found.setdefault(f"any:{bare}", value)
    return found


def sourced(key: str, default: str) -> str:
    """Return ``key`` with a source: its own if it begins with one, else ``default``."""
    source, colon, _ = key.partition(":")
    return key if colon and source in SOURCES else f"{default}:{key}"


def requirements(selector: Selector, source: str, prefix: str = "") -> tuple[Requirement, ...]:
    """Turn a selector into requirements on sourced keys.

    Args:
        selector: as written in the manifest.
        source: source of keys that name none.
        prefix: put before each key instead of ``source``, such as :data:`NAMESPACE_LABELS`.
    """

    def name(key: str) -> str:
        return prefix + key if prefix else sourced(key, source)

    labels = tuple(
        Requirement(name(key), Operator.IN, (value,)) for key, value in selector.match_labels
    )
    return labels + tuple(
        Requirement(name(item.key), item.operator, item.values)
        for item in selector.match_expressions
    )


def equals(key: str, value: str) -> Requirement:
    """Require that label ``key`` has ``value``."""
    return Requirement(key, Operator.IN, (value,))


def exists(key: str) -> Requirement:
    """Require that label ``key`` is there."""
    return Requirement(key, Operator.EXISTS)


def absent(key: str) -> Requirement:
    """Require that label ``key`` is not there."""
    return Requirement(key, Operator.DOES_NOT_EXIST)
