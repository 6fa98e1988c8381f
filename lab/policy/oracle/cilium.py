"""The model of CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, without layer 7.

A rule set that selects a pod and holds at least one rule of a direction puts the pod into default
deny there (unless enableDefaultDeny says otherwise). Deny rules win over every allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lab.policy.objects import (
    CiliumPolicy,
    CiliumRule,
    Cluster,
    Direction,
    Port,
    Requirement,
    Selector,
    Semantics,
    Workload,
)
from lab.policy.oracle.common import Opinion, Place, Question, in_block, satisfies
from lab.policy.oracle.kubernetes import unambiguous

_POD_NAMESPACE = "io.kubernetes.pod.namespace"
_NAMESPACE_LABEL = "io.cilium.k8s.namespace.labels."

_ENTITY_OF = {
    Place.OWN_NODE: "host",
    Place.OTHER_NODE: "remote-node",
    Place.OUTSIDE: "world",
}


def opinion(
    question: Question,
    direction: Direction,
    policies: Iterable[CiliumPolicy],
    semantics: Semantics,
) -> Opinion:
    """Collect what Cilium's policies say of one packet at one pod."""
    found = Opinion()
    selecting = [
        policy
        for policy in policies
        if pod_selected(policy.endpoint_selector, policy.namespace, question)
    ]
    for policy in selecting:
        allows, denies, explicit = _section(policy, direction)
        if (bool(allows) or bool(denies)) if explicit is None else explicit:
            found.isolated_by.append(policy.title)
        word = direction.value
        for rules, titles, field in (
            (allows, found.allowed_by, word),
            (denies, found.denied_by, f"{word}Deny"),
        ):
            # a requirement of one rule narrows the endpoint peers of all rules for the pod
            required = [selector for other in selecting for selector in _required(other, direction)]
            for number, rule in enumerate(rules):
                if _covers(rule, policy, question, direction, required, semantics):
                    titles.append(f"{policy.title} {field}[{number}]")
    return found


def _section(
    policy: CiliumPolicy, direction: Direction
) -> tuple[tuple[CiliumRule, ...], tuple[CiliumRule, ...], bool | None]:
    if direction is Direction.INGRESS:
        return policy.ingress, policy.ingress_deny, policy.default_deny_ingress
    return policy.egress, policy.egress_deny, policy.default_deny_egress


def _required(policy: CiliumPolicy, direction: Direction) -> Iterator[Selector]:
    allows, denies, _ = _section(policy, direction)
    for rule in (*allows, *denies):
        yield from rule.requires


# --- who ------------------------------------------------------------------------------------


def pod_selected(selector: Selector, namespace: str | None, question: Question) -> bool:
    """Tell whether a rule set's endpointSelector selects the pod in question."""
    return _selects_pod(selector, namespace, question.pod, question.cluster)


def _selects_pod(
    selector: Selector, namespace: str | None, pod: Workload, cluster: Cluster
) -> bool:
    mentioned = [key for key, _ in selector.match_labels]
    mentioned += [item.key for item in selector.match_expressions]
    # no pod carries a reserved label
    if any(key.startswith("reserved:") for key in mentioned):
        return False
    bare = [key.removeprefix("k8s:").removeprefix("any:") for key in mentioned]
    elsewhere = any(k == _POD_NAMESPACE or k.startswith(_NAMESPACE_LABEL[:-1]) for k in bare)
    if namespace is not None and not elsewhere and pod.namespace != namespace:
        return False
    return _labels_match(selector, pod, cluster)


def _labels_match(selector: Selector, pod: Workload, cluster: Cluster) -> bool:
    for key, value in selector.match_labels:
        if _label(key, pod, cluster) != value:
            return False
    return all(_expression(item, pod, cluster) for item in selector.match_expressions)


def _expression(item: Requirement, pod: Workload, cluster: Cluster) -> bool:
    return satisfies(_label(item.key, pod, cluster), item)


def _label(key: str, pod: Workload, cluster: Cluster) -> str | None:
    if key.startswith(("reserved:", "cidr:")):
        return None
    name = key.removeprefix("k8s:").removeprefix("any:")
    if name == _POD_NAMESPACE:
        return pod.namespace
    if name == "io.cilium.k8s.policy.serviceaccount":
        return pod.service_account
    if name == "io.cilium.k8s.policy.cluster":
        return "default"
    if name.startswith(_NAMESPACE_LABEL):
        return cluster.namespace_labels(pod.namespace).get(name.removeprefix(_NAMESPACE_LABEL))
    return pod.labels.get(name)


def _endpoint_peer(
    selector: Selector, policy: CiliumPolicy, question: Question, required: list[Selector]
) -> bool:
    pod = question.remote.pod
    if pod is None:
        return _selects_reserved(selector, policy.namespace, question.remote.place) and all(
            _selects_reserved(item, None, question.remote.place, empty=True) for item in required
        )
    if not _selects_pod(selector, policy.namespace, pod, question.cluster):
        return False
    return all(_labels_match(item, pod, question.cluster) for item in required)


def _selects_reserved(
    selector: Selector, namespace: str | None, place: Place, *, empty: bool = False
) -> bool:
    # a selector reaches nodes and the world only by naming their reserved label, or, in a
    # clusterwide policy, by requirements that hold where labels are missing
    own = f"reserved:{_ENTITY_OF[place]}"
    mentioned = [key for key, _ in selector.match_labels]
    mentioned += [item.key for item in selector.match_expressions]
    if not mentioned:
        return empty
    bare = [key.removeprefix("k8s:").removeprefix("any:") for key in mentioned]
    scoped = any(k == _POD_NAMESPACE or k.startswith(_NAMESPACE_LABEL[:-1]) for k in bare)
    reserved = any(key.startswith("reserved:") for key in mentioned)
    if namespace is not None and not scoped and not reserved:
        return False

    def value(key: str) -> str | None:
        return "" if key in (own, own.replace("reserved:", "any:"), own[9:]) else None

    return all(value(key) == wanted for key, wanted in selector.match_labels) and all(
        satisfies(value(item.key), item) for item in selector.match_expressions
    )


def _is_entity(entity: str, question: Question) -> bool:
    place = question.remote.place
    if entity == "all":
        return True
    if entity == "cluster":
        return place is not Place.OUTSIDE
    return place is not Place.POD and _ENTITY_OF[place] == entity


# --- what -----------------------------------------------------------------------------------


def _covers(
    rule: CiliumRule,
    policy: CiliumPolicy,
    question: Question,
    direction: Direction,
    required: list[Selector],
    semantics: Semantics,
) -> bool:
    anybody = rule.endpoints is None and rule.entities is None and rule.cidrs is None
    anything = rule.ports is None and rule.icmp_types is None
    if anybody and anything:
        return False  # "{}" selects no peer and no port: it only switches default deny on
    peers = (
        any(_endpoint_peer(item, policy, question, required) for item in rule.endpoints or ())
        or any(_is_entity(entity, question) for entity in rule.entities or ())
        or any(
            question.remote.place is Place.OUTSIDE and in_block(question.remote.address, block)
            for block in rule.cidrs or ()
        )
    )
    if not (anybody or peers):
        return False
    if anything:
        return True
    if question.packet.protocol == "ICMP":
        return question.packet.port in (rule.icmp_types or ())
    return any(_port(port, question, direction, semantics) for port in rule.ports or ())


def _port(port: Port, question: Question, direction: Direction, semantics: Semantics) -> bool:
    packet = question.packet
    if port.protocol not in ("ANY", packet.protocol):
        return False
    if port.port is None or port.port == 0:
        return True
    if isinstance(port.port, int):
        return port.port <= packet.port <= (port.end_port or port.port)
    if direction is Direction.EGRESS and semantics is Semantics.CILIUM:
        return packet.port in unambiguous(port.port, packet.protocol, question)
    server = question.server
    return server is not None and any(
        (known.name, known.protocol, known.number) == (port.port, packet.protocol, packet.port)
        for known in server.ports
    )
