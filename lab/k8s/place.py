"""Objects -> nodes, placed pods and addresses: a topology to build and a cluster to judge.

Placement is deterministic and sticky: the same manifests give the same names and addresses, and
pods that are already there keep theirs when something is applied on top.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from lab.errors import InputError
from lab.k8s.objects import ClusterNode, Controller, Meta, Namespace, Objects, PodObject, PodSpec
from lab.model import FIRST_POD_OFFSET, Node, Options, Pod, Topology
from lab.names import did_you_mean
from lab.plan.inventory import machines
from lab.policy.objects import Cluster, ContainerPort, Workload

DEFAULT_NODES = ("alpha", "beta")
"""Nodes of a lab whose manifests name none."""

_NOWHERE: Mapping[str, tuple[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class World:
    """Manifests made concrete.

    Attributes:
        objects: what was read.
        topology: nodes and pods with addresses, ready to plan.
        pods: pods of manifests and controllers, in the order of ``topology.pods``.
        cluster: the same for policies.
    """

    objects: Objects
    topology: Topology
    pods: tuple[PodObject, ...]
    cluster: Cluster

    @property
    def placement(self) -> dict[str, tuple[str, str]]:
        """``namespace/pod`` -> node and address, to keep them over the next change."""
        return {
            f"{pod.namespace}/{pod.name}": (pod.node, str(pod.address))
            for pod in self.topology.pods
        }


def place(
    objects: Objects,
    *,
    name: str,
    options: Options | None = None,
    keep: Mapping[str, tuple[str, str]] = _NOWHERE,
    nodes: tuple[Node, ...] = (),
) -> World:
    """Put every pod on a node and give it an address.

    Args:
        objects: what manifests say.
        name: of the topology.
        options: of the datapath.
        keep: ``namespace/pod`` -> node and address of pods that already run.
        nodes: that already run; manifests then cannot add others.

    Raises:
        InputError: a pod's node does not exist, a namespace looks misspelt, no node has the labels
            it asks for, two pods have one name, or a node has no address left.
    """
    described = nodes or _nodes(objects)
    _check_namespaces(objects)
    pods = _expand(objects, [node.name for node in described])
    empty = Topology(name=name, nodes=described, options=options or Options())
    placed = _Placement(objects, empty, keep).all(pods)
    topology = replace(empty, pods=placed)
    return World(objects, topology, tuple(pods), _cluster(objects, topology, pods))


def _nodes(objects: Objects) -> tuple[Node, ...]:
    written = objects.of(ClusterNode)
    if written:
        return tuple(Node(n.meta.name, n.pod_cidr, n.address) for n in written)
    named = [pod.spec.node_name for pod in objects.of(PodObject)]
    named += [controller.spec.node_name for controller in objects.of(Controller)]
    names = list(dict.fromkeys(name for name in named if name))
    spare = [name for name in DEFAULT_NODES if name not in names]
    # two at least: with one node nothing would ever travel between nodes
    while len(names) < len(DEFAULT_NODES):
        names.append(spare.pop(0))
    return tuple(Node(name) for name in names)


def _check_namespaces(objects: Objects) -> None:
    # a slip of the pen would put a pod or policy where nobody expects it
    for namespace in undescribed_namespaces(objects):
        item = next(item for item in objects.items if item.meta.namespace == namespace)
        hint = did_you_mean(namespace, _known_namespaces(objects))
        if hint.startswith("did you mean"):
            raise InputError(
                f"{item.meta.source}: {item.meta.title!r}: namespace {namespace!r} does not exist",
                hint=hint + "; or add a Namespace object, with its labels",
            )


def _known_namespaces(objects: Objects) -> set[str]:
    return {n.meta.name for n in objects.of(Namespace)} | {"default", "kube-system"}


def undescribed_namespaces(objects: Objects) -> tuple[str, ...]:
    """Return namespaces that objects are in and no manifest describes: they have no labels."""
    known = _known_namespaces(objects)
    used = dict.fromkeys(item.meta.namespace for item in objects.items if item.meta.namespace)
    return tuple(name for name in used if name not in known)


def _expand(objects: Objects, nodes: list[str]) -> list[PodObject]:
    found: dict[str, PodObject] = {}
    for item in objects.items:
        if isinstance(item, PodObject):
            made = [item]
        elif isinstance(item, Controller):
            made = _pods_of(item, nodes)
        else:
            continue
        for pod in made:
            if pod.meta.title in found:
                raise InputError(
                    f"{pod.meta.source}: two pods are called {pod.meta.title!r}",
                    hint="rename the pod or the controller",
                )
            found[pod.meta.title] = pod
    return list(found.values())


def _pods_of(item: Controller, nodes: list[str]) -> list[PodObject]:
    name, owner = item.meta.name, f"{item.kind}/{item.meta.name}"
    if item.kind == "DaemonSet":
        pairs = [(f"{name}-{node}", node) for node in nodes]
        return [_pod(item, pod, replace(item.spec, node_name=on), owner, {}) for pod, on in pairs]
    # ordinals begin at 0; the others' random suffixes are numbers here, equal in every run
    first = 0 if item.kind == "StatefulSet" else 1
    made = []
    for number in range(first, first + item.replicas):
        extra: dict[str, str] = {}
        if item.kind == "StatefulSet":
            extra = {
                "statefulset.kubernetes.io/pod-name": f"{name}-{number}",
                "apps.kubernetes.io/pod-index": str(number),
            }
        made.append(_pod(item, f"{name}-{number}", item.spec, owner, extra))
    return made


def _pod(
    item: Controller, name: str, spec: PodSpec, owner: str, extra: Mapping[str, str]
) -> PodObject:
    meta = Meta(
        name=name,
        namespace=item.meta.namespace,
        labels={**item.template_labels, **extra},
        source=item.meta.source,
    )
    return PodObject(meta, spec, owner)


def _of_kubelet(node: str) -> dict[str, str]:
    """Return the labels that a kubelet gives every node."""
    machine = platform.machine()
    return {
        "kubernetes.io/hostname": node,
        "kubernetes.io/os": "linux",
        # Go's names of the two that clusters are mostly made of
        "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
    }


class _Placement:
    """Chooses nodes and addresses one pod after the other."""

    def __init__(
        self, objects: Objects, topology: Topology, keep: Mapping[str, tuple[str, str]]
    ) -> None:
        self.labels = {
            node.meta.name: {**_of_kubelet(node.meta.name), **node.meta.labels}
            for node in objects.of(ClusterNode)
        }
        self.names = [node.name for node in topology.nodes]
        self.keep = keep
        self.load: Counter[str] = Counter()
        self.owners: Counter[tuple[str, str, str]] = Counter()
        # shared over all pods of a node: each takes the next, and one lap around the network is
        # enough
        self.hosts = {
            node.name: iter(list(topology.pod_cidr(node))[FIRST_POD_OFFSET:-1])
            for node in topology.nodes
        }
        self.taken: set[str] = set()

    def all(self, pods: list[PodObject]) -> tuple[Pod, ...]:
        """Place every pod; those that are kept first take their addresses."""
        # before anybody else chooses: a pod that runs cannot move
        self.taken = {self.keep[p.meta.title][1] for p in pods if p.meta.title in self.keep}
        found = []
        for pod in pods:
            if pod.meta.title in self.keep:
                node, address = self.keep[pod.meta.title]
            else:
                node = self._node(pod)
                address = self._address(node)
            self.load[node] += 1
            self.owners[pod.meta.namespace, pod.owner, node] += bool(pod.owner)
            found.append(
                Pod(
                    name=pod.meta.name,
                    node=node,
                    labels=dict(pod.meta.labels),
                    namespace=pod.meta.namespace,
                    address=address,
                )
            )
        return tuple(found)

    def _node(self, pod: PodObject) -> str:
        if pod.spec.node_name:
            if pod.spec.node_name not in self.names:
                raise InputError(
                    f"{pod.meta.source}: pod {pod.meta.title!r}: node {pod.spec.node_name!r} "
                    "does not exist",
                    hint=did_you_mean(pod.spec.node_name, self.names),
                )
            return pod.spec.node_name
        fitting = [name for name in self.names if self._fits(pod, name)]
        if not fitting:
            raise InputError(
                f"{pod.meta.source}: pod {pod.meta.title!r}: no node has the labels "
                + ", ".join(f"{key}={value}" for key, value in pod.spec.node_selector),
                hint="add a Node object with them, or remove the nodeSelector",
            )
        # replicas spread first, then nodes fill evenly
        key = pod.meta.namespace, pod.owner
        return min(fitting, key=lambda name: (self.owners[(*key, name)], self.load[name]))

    def _fits(self, pod: PodObject, name: str) -> bool:
        labels = self.labels.get(name) or _of_kubelet(name)
        return all(labels.get(key) == value for key, value in pod.spec.node_selector)

    def _address(self, node: str) -> str:
        for host in self.hosts[node]:
            if str(host) not in self.taken:
                return str(host)
        raise InputError(
            f"node {node!r} has no pod address left",
            hint="give it a larger spec.podCIDR, or use more nodes",
        )


def _cluster(objects: Objects, topology: Topology, pods: list[PodObject]) -> Cluster:
    namespaces: dict[str, dict[str, str]] = {"default": {}, "kube-system": {}}
    namespaces.update({n.meta.name: dict(n.meta.labels) for n in objects.of(Namespace)})
    workloads = []
    for pod, placed in zip(pods, topology.pods, strict=True):
        ports = tuple(
            ContainerPort(port.name, port.number, port.protocol)
            for container in pod.spec.containers
            for port in container.ports
            if port.name
        )
        workloads.append(
            Workload(
                name=pod.meta.name,
                namespace=pod.meta.namespace,
                node=placed.node,
                address=str(placed.address),
                labels=dict(pod.meta.labels),
                service_account=pod.spec.service_account,
                ports=ports,
            )
        )
    return Cluster(namespaces=namespaces, workloads=tuple(workloads), machines=machines(topology))
