"""Policies in the one form that the compiler works on: subject, peers, ports, effect.

NetworkPolicy and CiliumNetworkPolicy both become :class:`Rule` and :class:`Isolation`; what their
fields mean is decided here and nowhere else in the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from lab.errors import InputError
from lab.policy import labels
from lab.policy.labels import LabelMatch
from lab.policy.objects import (
    PROTOCOL_NUMBERS,
    CiliumPolicy,
    CiliumRule,
    Direction,
    IPBlock,
    NetworkPolicy,
    NetworkRule,
    Peer,
    Policy,
    Port,
    Requirement,
    Selector,
    Semantics,
)

POD_BLOCK = "ipblock:"
"""Label source for IP blocks that pods may match; ``cidr:`` is for addresses outside only."""


@dataclass(frozen=True, slots=True)
class PortSpan:
    """Ports of one protocol.

    Attributes:
        protocol: IANA number.
        first: first port, or ICMP type.
        last: last port.
        name: container port name instead of numbers.
    """

    protocol: int
    first: int = 0
    last: int = 0xFFFF
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Traffic that a policy allows or denies.

    Attributes:
        subject: pods the rule applies to.
        direction: seen from the subject.
        deny: the rule forbids.
        peers: alternatives for the remote side; ``None`` means anybody.
        spans: ports; empty means all traffic.
        origin: names policy and rule for reports.
        confined: its peers are endpoint selectors, which requirements narrow.
        requires: narrow the endpoint selectors of every Cilium rule for the same subject.
    """

    subject: LabelMatch
    direction: Direction
    deny: bool
    peers: tuple[LabelMatch, ...] | None
    spans: tuple[PortSpan, ...]
    origin: str
    confined: bool = False
    requires: tuple[LabelMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class Isolation:
    """A policy selects these pods in this direction: what no rule allows is dropped."""

    subject: LabelMatch
    direction: Direction
    origin: str


@dataclass(frozen=True, slots=True)
class Normalised:
    """One policy in normal form.

    Attributes:
        rules: in the order they were written.
        isolations: at most one per direction.
        cidrs: networks that need an identity.
        pod_blocks: networks whose membership becomes part of a pod's identity.
        peer_port_names: named ports that egress rules use, with protocol number.
    """

    rules: tuple[Rule, ...]
    isolations: tuple[Isolation, ...]
    cidrs: frozenset[str]
    pod_blocks: frozenset[str]
    peer_port_names: frozenset[tuple[str, int]]


def normalise(policy: Policy, semantics: Semantics) -> Normalised:
    """Bring a policy into normal form.

    Raises:
        InputError: a rule says something impossible, such as an unknown entity.
    """
    if isinstance(policy, NetworkPolicy):
        rules, isolations = _network_policy(policy, semantics)
        blocks = [
            peer.ip_block
            for rule in (*policy.ingress, *policy.egress)
            for peer in rule.peers
            if peer.ip_block
        ]
    else:
        rules, isolations = _cilium_policy(policy)
        sections = (policy.ingress, policy.ingress_deny, policy.egress, policy.egress_deny)
        blocks = [block for part in sections for rule in part for block in rule.cidrs or ()]
    networks = frozenset(
        canonical(cidr) for block in blocks for cidr in (block.cidr, *block.excepts)
    )
    # Cilium's CIDR never matches a pod, so only Kubernetes' meaning needs pods told apart by
    # address
    on_pods = isinstance(policy, NetworkPolicy) and semantics is Semantics.K8S
    return Normalised(
        rules=tuple(rules),
        isolations=tuple(isolations),
        cidrs=networks,
        pod_blocks=networks if on_pods else frozenset(),
        peer_port_names=frozenset(
            (span.name, span.protocol)
            for rule in rules
            if rule.direction is Direction.EGRESS
            for span in rule.spans
            if span.name
        ),
    )


def canonical(cidr: str) -> str:
    """Return a network with its host bits cleared, in CIDR notation.

    Raises:
        InputError: the text is no IPv4 network.
    """
    try:
        return str(IPv4Network(cidr, strict=False))
    except ValueError as error:
        raise InputError(
            f"{cidr!r} is no IPv4 network ({error})", hint="write it like '10.0.1.0/24'"
        ) from None


def _block_match(block: IPBlock, source: str) -> LabelMatch:
    inside = labels.exists(source + canonical(block.cidr))
    outside = tuple(labels.absent(source + canonical(cidr)) for cidr in block.excepts)
    return LabelMatch((inside, *outside))


def _spans(ports: tuple[Port, ...]) -> tuple[PortSpan, ...]:
    found = []
    for port in ports:
        names = ("TCP", "UDP", "SCTP") if port.protocol == "ANY" else (port.protocol,)
        for name in names:
            number = PROTOCOL_NUMBERS[name]
            # Cilium: port 0 is every port
            if port.port is None or port.port == 0:
                found.append(PortSpan(number))
            elif isinstance(port.port, str):
                found.append(PortSpan(number, name=port.port))
            else:
                found.append(PortSpan(number, port.port, port.end_port or port.port))
    return tuple(found)


# --- NetworkPolicy --------------------------------------------------------------------------


def _network_policy(
    policy: NetworkPolicy, semantics: Semantics
) -> tuple[list[Rule], list[Isolation]]:
    subject = LabelMatch(
        (
            labels.equals(labels.NAMESPACE, policy.namespace),
            *labels.requirements(policy.pod_selector, "k8s"),
        )
    )
    isolations = [
        Isolation(subject, direction, policy.title)
        for direction in Direction
        if direction in policy.directions
    ]
    rules = [
        _network_rule(policy, semantics, subject, direction, number, rule)
        for direction, written in (
            (Direction.INGRESS, policy.ingress),
            (Direction.EGRESS, policy.egress),
        )
        if direction in policy.directions
        for number, rule in enumerate(written)
    ]
    return rules, isolations


def _network_rule(
    policy: NetworkPolicy,
    semantics: Semantics,
    subject: LabelMatch,
    direction: Direction,
    number: int,
    rule: NetworkRule,
) -> Rule:
    source = POD_BLOCK if semantics is Semantics.K8S else "cidr:"
    return Rule(
        subject=subject,
        direction=direction,
        deny=False,
        # Kubernetes: without `from` or `to` everybody is meant
        peers=tuple(_peer(policy.namespace, peer, source) for peer in rule.peers) or None,
        spans=_spans(rule.ports),
        origin=f"{policy.title} {direction.value}[{number}]",
    )


def _peer(namespace: str, peer: Peer, block_source: str) -> LabelMatch:
    if peer.ip_block:
        return _block_match(peer.ip_block, block_source)
    where: tuple[Requirement, ...] = (labels.equals(labels.NAMESPACE, namespace),)
    if peer.namespace_selector is not None:
        where = (
            # {} means the pods of every namespace, and nobody who is no pod
            labels.exists(labels.NAMESPACE),
            *labels.requirements(peer.namespace_selector, "k8s", labels.NAMESPACE_LABELS),
        )
    who = labels.requirements(peer.pod_selector, "k8s") if peer.pod_selector else ()
    return LabelMatch(where + who)


# --- CiliumNetworkPolicy --------------------------------------------------------------------

_RESERVED_CLUSTER = (
    "host",
    "remote-node",
    "init",
    "health",
    "unmanaged",
    "kube-apiserver",
    "ingress",
)

ENTITIES = frozenset({"all", "world", "cluster", "none", *_RESERVED_CLUSTER})
"""Entities that a Cilium rule can name; ``all`` needs no label."""


def _entity_matches(entity: str) -> tuple[LabelMatch, ...]:
    if entity == "none":
        return ()
    if entity == "cluster":
        reserved = tuple(
            LabelMatch((labels.exists(f"reserved:{name}"),)) for name in _RESERVED_CLUSTER
        )
        return (LabelMatch((labels.exists(labels.CLUSTER),)), *reserved)
    if entity in ENTITIES:
        return (LabelMatch((labels.exists(f"reserved:{entity}"),)),)
    raise InputError(f"entity {entity!r} is unknown", hint="known: " + ", ".join(sorted(ENTITIES)))


def _endpoint_match(selector: Selector, namespace: str | None) -> LabelMatch:
    # Source: Cilium pkg/k8s/apis/cilium.io/utils getEndpointSelector: a selector that names no
    # namespace is confined to the policy's own; in a clusterwide policy the empty one means pods.
    wanted = labels.requirements(selector, "any")
    keys = [item.key.partition(":")[2] for item in wanted]
    names_namespace = any(
        key == "io.kubernetes.pod.namespace" or key.startswith("io.cilium.k8s.namespace.labels")
        for key in keys
    )
    reserved = any(item.key.startswith("reserved:") for item in wanted)
    if namespace is not None and not names_namespace and not reserved:
        wanted = (labels.equals(labels.NAMESPACE, namespace), *wanted)
    elif namespace is None and not wanted:
        wanted = (labels.exists(labels.NAMESPACE),)
    return LabelMatch(wanted)


def _cilium_policy(policy: CiliumPolicy) -> tuple[list[Rule], list[Isolation]]:
    subject = _endpoint_match(policy.endpoint_selector, policy.namespace)
    isolations = [
        Isolation(subject, direction, policy.title)
        for direction, explicit, rules in (
            (
                Direction.INGRESS,
                policy.default_deny_ingress,
                (*policy.ingress, *policy.ingress_deny),
            ),
            (Direction.EGRESS, policy.default_deny_egress, (*policy.egress, *policy.egress_deny)),
        )
        if (bool(rules) if explicit is None else explicit)
    ]
    found: list[Rule] = []
    for field, direction, deny, written in (
        ("ingress", Direction.INGRESS, False, policy.ingress),
        ("ingressDeny", Direction.INGRESS, True, policy.ingress_deny),
        ("egress", Direction.EGRESS, False, policy.egress),
        ("egressDeny", Direction.EGRESS, True, policy.egress_deny),
    ):
        for number, rule in enumerate(written):
            peers, effective = _cilium_peers(rule, policy.namespace)
            needs = tuple(LabelMatch(labels.requirements(item, "any")) for item in rule.requires)
            # a rule without effect still isolates (above), and its requirements narrow other rules
            if effective or needs:
                found.append(
                    Rule(
                        subject=subject,
                        direction=direction,
                        deny=deny,
                        peers=peers if effective else (),
                        spans=_cilium_spans(rule),
                        origin=f"{policy.title} {field}[{number}]",
                        confined=rule.endpoints is not None,
                        requires=needs,
                    )
                )
    return found, isolations


def _cilium_spans(rule: CiliumRule) -> tuple[PortSpan, ...]:
    types = tuple(PortSpan(1, number, number) for number in rule.icmp_types or ())
    return _spans(rule.ports or ()) + types


def _cilium_peers(
    rule: CiliumRule, namespace: str | None
) -> tuple[tuple[LabelMatch, ...] | None, bool]:
    # the second value is False for a rule that allows (or denies) nothing, such as {}
    limited = rule.ports is not None or rule.icmp_types is not None
    written = (rule.endpoints, rule.entities, rule.cidrs)
    if all(part is None for part in written):
        return None, limited
    if rule.entities and "all" in rule.entities:
        return None, True
    peers = [_endpoint_match(item, namespace) for item in rule.endpoints or ()]
    peers += [match for entity in rule.entities or () for match in _entity_matches(entity)]
    peers += [_block_match(block, "cidr:") for block in rule.cidrs or ()]
    return tuple(peers), bool(peers)
