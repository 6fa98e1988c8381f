"""Policies, pods and namespaces as their authors wrote them: nothing resolved, nothing compiled.

The compiler and the oracle both start from these values and share nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Semantics(Enum):
    """Whose promises hold where Kubernetes' and Cilium's differ.

    ``K8S``: an ipBlock also matches pods, a named port means each destination's own port, and a
    pod always reaches its own node. ``CILIUM``: a CIDR never matches a pod, a named port of an
    egress rule must mean one number in the whole cluster, and the own node is a peer like others.
    """

    K8S = "k8s"
    CILIUM = "cilium"


class Direction(Enum):
    """Seen from the pod that a policy selects."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Operator(Enum):
    """Set operators of a label selector requirement."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of ``matchExpressions``.

    Attributes:
        key: label key; in Cilium's objects it may carry a source (``k8s:app``).
        operator: how label and values are compared.
        values: empty for ``Exists`` and ``DoesNotExist``.
    """

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector; the empty one selects everything.

    Attributes:
        match_labels: pairs of key and value that must all be there.
        match_expressions: requirements that must all hold.
    """

    match_labels: tuple[tuple[str, str], ...] = ()
    match_expressions: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, *expressions: Requirement, **labels: str) -> Selector:
        """Build a selector from keyword labels and requirements, for tests and scenarios."""
        return cls(tuple(sorted(labels.items())), expressions)


@dataclass(frozen=True, slots=True)
class IPBlock:
    """A network and the networks taken out of it, in CIDR notation."""

    cidr: str
    excepts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """One port, named port or range of a rule.

    Attributes:
        protocol: ``TCP``, ``UDP``, ``SCTP``; ``ANY`` (Cilium) means all three.
        port: number, container port name, or ``None`` for every port of the protocol.
        end_port: last port of the range that begins at ``port``.
    """

    protocol: str = "TCP"
    port: int | str | None = None
    end_port: int | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """One entry of ``from``/``to`` of a NetworkPolicy: selectors or one IP block."""

    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None
    ip_block: IPBlock | None = None


@dataclass(frozen=True, slots=True)
class NetworkRule:
    """One ingress or egress rule; no peers means any peer, no ports any traffic."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """``networking.k8s.io/v1`` NetworkPolicy.

    Attributes:
        name: unique within the namespace.
        namespace: whose pods ``pod_selector`` selects from.
        pod_selector: the pods that the policy isolates.
        ingress: what may come in.
        egress: what may go out.
        directions: ``policyTypes`` after defaulting.
    """

    name: str
    namespace: str = "default"
    pod_selector: Selector = Selector()
    ingress: tuple[NetworkRule, ...] = ()
    egress: tuple[NetworkRule, ...] = ()
    directions: frozenset[Direction] = frozenset({Direction.INGRESS})

    @property
    def title(self) -> str:
        """How reports name the policy."""
        return f"networkpolicy/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CiliumRule:
    """One element of ingress, ingressDeny, egress or egressDeny.

    ``None`` means that the field was not written, which differs from an empty tuple: absent
    peers with ports mean any peer, an empty list of peers means nobody.

    Attributes:
        endpoints: ``fromEndpoints``/``toEndpoints``.
        requires: ``fromRequires``/``toRequires``: added to every endpoint selector, allow nothing.
        entities: ``fromEntities``/``toEntities``.
        cidrs: ``fromCIDR``, ``fromCIDRSet`` and their ``to`` forms.
        ports: ``toPorts``, flattened.
        icmp_types: ICMPv4 types of ``icmps``.
    """

    endpoints: tuple[Selector, ...] | None = None
    requires: tuple[Selector, ...] = ()
    entities: tuple[str, ...] | None = None
    cidrs: tuple[IPBlock, ...] | None = None
    ports: tuple[Port, ...] | None = None
    icmp_types: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CiliumPolicy:
    """One rule set of a CiliumNetworkPolicy, or of a clusterwide one (no namespace).

    Attributes:
        name: name of the object; one object may hold several rule sets (``specs``).
        namespace: ``None`` for CiliumClusterwideNetworkPolicy.
        endpoint_selector: the pods that the rules apply to.
        default_deny_ingress: ``enableDefaultDeny.ingress``; ``None`` derives it from the rules.
        default_deny_egress: the same for egress.
    """

    name: str
    namespace: str | None = "default"
    endpoint_selector: Selector = Selector()
    ingress: tuple[CiliumRule, ...] = ()
    ingress_deny: tuple[CiliumRule, ...] = ()
    egress: tuple[CiliumRule, ...] = ()
    egress_deny: tuple[CiliumRule, ...] = ()
    default_deny_ingress: bool | None = None
    default_deny_egress: bool | None = None

    @property
    def title(self) -> str:
        """How reports name the policy."""
        if self.namespace is None:
            return f"ciliumclusterwidenetworkpolicy/{self.name}"
        return f"ciliumnetworkpolicy/{self.namespace}/{self.name}"


Policy = NetworkPolicy | CiliumPolicy


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A named port of a container, what named ports of policies refer to."""

    name: str
    number: int
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What policy needs to know of a pod.

    Attributes:
        name: pod name.
        namespace: its namespace.
        node: name of its node.
        address: its IPv4 address.
        labels: the pod's own labels.
        service_account: part of its identity in Cilium.
        ports: named container ports.
    """

    name: str
    namespace: str = "default"
    node: str
    address: str
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY, hash=False)
    service_account: str = "default"
    ports: tuple[ContainerPort, ...] = ()

    @property
    def title(self) -> str:
        """``namespace/name``, unique in a cluster."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Machine:
    """What policy needs to know of a node: its name and all of its own addresses."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Everything besides policies that a verdict depends on.

    Attributes:
        namespaces: name -> labels; ``kubernetes.io/metadata.name`` is implied.
        workloads: pods with an address.
        machines: nodes.
    """

    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    workloads: tuple[Workload, ...] = ()
    machines: tuple[Machine, ...] = ()

    def namespace_labels(self, name: str) -> dict[str, str]:
        """Return the labels of a namespace, its name label included."""
        # an API server gives every namespace this label
        return {**self.namespaces.get(name, {}), "kubernetes.io/metadata.name": name}


PROTOCOL_NUMBERS = MappingProxyType({"ICMP": 1, "TCP": 6, "UDP": 17, "SCTP": 132})
"""IANA numbers of the protocols that policies name."""
