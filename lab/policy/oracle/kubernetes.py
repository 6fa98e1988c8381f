"""The model of ``networking.k8s.io/v1`` NetworkPolicy.

A policy isolates the pods it selects, in the directions of its policyTypes. Traffic of an isolated
pod is allowed if any rule of any policy that selects it allows it; rules add up, nothing denies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lab.policy.objects import (
    Direction,
    NetworkPolicy,
    NetworkRule,
    Peer,
    Port,
    Selector,
    Semantics,
)
from lab.policy.oracle.common import Opinion, Place, Question, in_block, satisfies


def opinion(
    question: Question,
    direction: Direction,
    policies: Iterable[NetworkPolicy],
    semantics: Semantics,
) -> Opinion:
    """Collect what NetworkPolicies say of one packet at one pod."""
    found = Opinion()
    for policy in policies:
        if direction not in policy.directions or policy.namespace != question.pod.namespace:
            continue
        if not selected(policy.pod_selector, question.pod.labels):
            continue
        found.isolated_by.append(policy.title)
        rules = policy.ingress if direction is Direction.INGRESS else policy.egress
        for number, rule in enumerate(rules):
            if _rule_allows(rule, policy, question, direction, semantics):
                found.allowed_by.append(f"{policy.title} {direction.value}[{number}]")
    return found


def selected(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Apply a label selector to labels; the empty selector selects all."""
    for key, value in selector.match_labels:
        if labels.get(key) != value:
            return False
    return all(satisfies(labels.get(item.key), item) for item in selector.match_expressions)


def _rule_allows(
    rule: NetworkRule,
    policy: NetworkPolicy,
    question: Question,
    direction: Direction,
    semantics: Semantics,
) -> bool:
    # "from: if this field is empty or missing, this rule matches all sources"
    if rule.peers and not any(_is_peer(p, policy, question, semantics) for p in rule.peers):
        return False
    # "ports: if this field is empty or missing, this rule matches all ports"
    return not rule.ports or any(
        _is_port(port, question, direction, semantics) for port in rule.ports
    )


def _is_peer(peer: Peer, policy: NetworkPolicy, question: Question, semantics: Semantics) -> bool:
    remote = question.remote
    if peer.ip_block is not None:
        if remote.place is Place.OUTSIDE:
            return in_block(remote.address, peer.ip_block)
        # Cilium: a CIDR never stands for what the cluster manages
        inside = remote.place is Place.POD and semantics is Semantics.K8S
        return inside and in_block(remote.address, peer.ip_block)
    if remote.pod is None:
        return False
    if peer.namespace_selector is None:
        if remote.pod.namespace != policy.namespace:
            return False
    else:
        labels = question.cluster.namespace_labels(remote.pod.namespace)
        if not selected(peer.namespace_selector, labels):
            return False
    return peer.pod_selector is None or selected(peer.pod_selector, remote.pod.labels)


def _is_port(port: Port, question: Question, direction: Direction, semantics: Semantics) -> bool:
    packet = question.packet
    if packet.protocol != port.protocol:
        return False
    if port.port is None:
        return True
    if isinstance(port.port, str):
        return packet.port in _numbers(port.port, port.protocol, question, direction, semantics)
    if port.end_port is not None:
        return port.port <= packet.port <= port.end_port
    return packet.port == port.port


def _numbers(
    name: str, protocol: str, question: Question, direction: Direction, semantics: Semantics
) -> set[int]:
    # the name is looked up in the containers of the pod that receives the packet
    if direction is Direction.EGRESS and semantics is Semantics.CILIUM:
        return unambiguous(name, protocol, question)
    if question.server is None:
        return set()
    return {
        port.number
        for port in question.server.ports
        if port.name == name and port.protocol == protocol
    }


def unambiguous(name: str, protocol: str, question: Question) -> set[int]:
    """Resolve an egress port name as Cilium does: one number in the cluster, or none at all."""
    everywhere = {
        port.number
        for pod in question.cluster.workloads
        for port in pod.ports
        if port.name == name and port.protocol == protocol
    }
    return everywhere if len(everywhere) == 1 else set()
