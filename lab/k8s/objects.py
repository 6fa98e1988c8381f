"""What manifests say, as frozen data: one class per kind, names as in Kubernetes.

Fields that have no meaning for the network of a lab are read, checked for their names, and left
out. Policies are :mod:`lab.policy.objects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from lab.policy.objects import Policy

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """Name, namespace and labels of an object, and where it was written.

    Attributes:
        name: DNS name.
        namespace: empty for cluster-wide kinds.
        labels: of the object itself.
        annotations: of the object itself.
        source: ``FILE:LINE``.
    """

    name: str
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    @property
    def title(self) -> str:
        """``namespace/name``, or the name alone for cluster-wide kinds."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace with its labels (in ``meta``)."""

    meta: Meta


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node with its labels; address and pod network may be given.

    Attributes:
        meta: name and labels.
        pod_cidr: ``spec.podCIDR``.
        address: ``status.addresses`` of type InternalIP.
    """

    meta: Meta
    pod_cidr: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPort:
    """A container port.

    Attributes:
        number: port number.
        name: empty if it has none.
        protocol: ``TCP``, ``UDP`` or ``SCTP``.
        host_port: port of the node that leads here, or ``None``.
    """

    number: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How readiness is found out.

    Attributes:
        kind: ``httpGet``, ``tcpSocket``, ``grpc`` or ``exec``.
        port: number or name.
        path: of ``httpGet``.
        command: of ``exec``.
        initial_delay_s: before the first probe.
        period_s: between probes.
        timeout_s: of one probe.
        success: successes in a row that make the container ready.
        failure: failures in a row that make it unready.
    """

    kind: str
    port: int | str = 0
    path: str = "/"
    command: tuple[str, ...] = ()
    initial_delay_s: int = 0
    period_s: int = 10
    timeout_s: int = 1
    success: int = 1
    failure: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of a pod.

    Attributes:
        name: unique in the pod.
        image: as written.
        command: replaces the image's entry point.
        args: arguments.
        env: plain values only.
        ports: what it says it listens on.
        readiness: readiness probe.
    """

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    ports: tuple[NamedPort, ...] = ()
    readiness: Probe | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """What a pod consists of and where it may run.

    Attributes:
        containers: at least one.
        node_name: fixed node.
        node_selector: labels that its node must have.
        service_account: part of its identity.
    """

    containers: tuple[Container, ...]
    node_name: str | None = None
    node_selector: tuple[tuple[str, str], ...] = ()
    service_account: str = "default"


@dataclass(frozen=True, slots=True)
class PodObject:
    """A pod, written as such or made by a controller.

    Attributes:
        meta: name, namespace, labels.
        spec: containers and node.
        owner: such as ``Deployment/web``; empty for a bare pod.
    """

    meta: Meta
    spec: PodSpec
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Controller:
    """Deployment, ReplicaSet, StatefulSet or DaemonSet.

    Attributes:
        kind: one of these names.
        meta: of the controller.
        replicas: number of pods; a DaemonSet has one per node.
        template_labels: labels of its pods.
        spec: of its pods.
    """

    kind: str
    meta: Meta
    replicas: int
    template_labels: Mapping[str, str]
    spec: PodSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """One port of a service.

    Attributes:
        port: of the service.
        target: port or container port name of the backends.
        protocol: ``TCP``, ``UDP`` or ``SCTP``.
        name: needed if there are several.
        node_port: of every node, for NodePort and LoadBalancer; 0 lets the lab choose.
    """

    port: int
    target: int | str
    protocol: str = "TCP"
    name: str = ""
    node_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceObject:
    """A service as written.

    Attributes:
        meta: name and namespace.
        kind: ``ClusterIP``, ``NodePort``, ``LoadBalancer`` or ``ExternalName``.
        selector: labels of its pods; ``None`` if endpoints are given apart.
        ports: at least one, except for ExternalName and headless services.
        cluster_ip: given address, ``None`` (headless) or empty (the lab chooses).
        external_ips: ``spec.externalIPs``.
        load_balancer_ip: given address or empty.
        source_ranges: ``spec.loadBalancerSourceRanges``.
        affinity_s: session affinity by client address in seconds, 0 for none.
        external_local: ``externalTrafficPolicy: Local``.
        internal_local: ``internalTrafficPolicy: Local``.
        publish_not_ready: pods count before they are ready.
    """

    meta: Meta
    kind: str = "ClusterIP"
    selector: tuple[tuple[str, str], ...] | None = None
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str | None = ""
    external_ips: tuple[str, ...] = ()
    load_balancer_ip: str = ""
    source_ranges: tuple[str, ...] = ()
    affinity_s: int = 0
    external_local: bool = False
    internal_local: bool = False
    publish_not_ready: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointAddress:
    """One backend address of an EndpointSlice.

    Attributes:
        address: IPv4.
        ready: takes new connections; of a terminating one: still serves.
        terminating: finishes the old ones.
        node: where it is, or empty.
    """

    address: str
    ready: bool = True
    terminating: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointsObject:
    """Backends given by hand: one EndpointSlice, or one subset of an Endpoints object.

    Attributes:
        meta: name and namespace.
        service: name of the service they belong to.
        addresses: backends.
        ports: name, number, protocol; an unnamed port has an empty name.
    """

    meta: Meta
    service: str
    addresses: tuple[EndpointAddress, ...]
    ports: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """A policy object of any kind: its rule sets and its place.

    Attributes:
        kind: ``NetworkPolicy``, ``CiliumNetworkPolicy`` or ``CiliumClusterwideNetworkPolicy``.
        meta: name and namespace.
        rules: one, or one per element of ``specs``.
    """

    kind: str
    meta: Meta
    rules: tuple[Policy, ...]


KubernetesObject = (
    Namespace
    | ClusterNode
    | PodObject
    | Controller
    | ServiceObject
    | EndpointsObject
    | PolicyObject
)


def kind_of(item: KubernetesObject) -> str:
    """Return the kind of an object as manifests write it."""
    if isinstance(item, Controller | PolicyObject):
        return item.kind
    return {
        Namespace: "Namespace",
        ClusterNode: "Node",
        PodObject: "Pod",
        ServiceObject: "Service",
        EndpointsObject: "EndpointSlice",
    }[type(item)]


def key_of(item: KubernetesObject) -> tuple[str, str, str]:
    """Return kind, namespace and name, which identify an object in a cluster."""
    return kind_of(item), item.meta.namespace, item.meta.name


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects in the order they were written, each key once.

    Attributes:
        items: everything that means something to the lab.
        notes: kinds that were read and left out, ``FILE:LINE: kind name: why``.
        settings: options of the datapath, as words; they count when the lab is built.
    """

    items: tuple[KubernetesObject, ...] = ()
    notes: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """Return the objects of one class, in order."""
        return tuple(item for item in self.items if isinstance(item, kind))

    def with_(self, other: Objects) -> Objects:
        """Return these objects with ``other`` applied: same key replaces, new ones follow."""
        # a mapping keeps the place of a key that is set again: what is replaced stays where it was,
        # and so do the pods made of it
        merged = {key_of(item): item for item in self.items}
        merged.update({key_of(item): item for item in other.items})
        settings = self.settings + other.settings
        return Objects(tuple(merged.values()), self.notes + other.notes, settings)

    def without(self, keys: frozenset[tuple[str, str, str]]) -> Objects:
        """Return these objects except those with the given keys."""
        return replace(self, items=tuple(i for i in self.items if key_of(i) not in keys))

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All rule sets of all policy objects."""
        return tuple(rule for item in self.of(PolicyObject) for rule in item.rules)
