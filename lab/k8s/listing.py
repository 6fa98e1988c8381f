"""Objects of a running lab as rows of a table and as Kubernetes would print them in JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lab.errors import InputError
from lab.k8s.backends import selected_pods, target_port
from lab.k8s.live import settled
from lab.k8s.objects import (
    ClusterNode,
    Controller,
    EndpointsObject,
    Meta,
    Namespace,
    PolicyObject,
    ServiceObject,
)
from lab.k8s.place import World
from lab.k8s.pods import lab_name, ready_pods
from lab.k8s.state import State
from lab.k8s.write import manifest
from lab.names import did_you_mean
from lab.runtime import Lab


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that can be listed.

    Attributes:
        name: as in manifests.
        plural: as it is typed; ``short`` are further names.
        cluster_wide: it has no namespace.
    """

    name: str
    plural: str
    short: tuple[str, ...] = ()
    cluster_wide: bool = False


KINDS = (
    Kind("Pod", "pods", ("po",)),
    Kind("Service", "services", ("svc",)),
    Kind("EndpointSlice", "endpoints", ("ep", "endpointslices")),
    Kind("NetworkPolicy", "networkpolicies", ("netpol",)),
    Kind("CiliumNetworkPolicy", "ciliumnetworkpolicies", ("cnp",)),
    Kind("CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", ("ccnp",), True),
    Kind("Identity", "identities", ("ciliumidentities", "id"), True),
    Kind("Namespace", "namespaces", ("ns",), True),
    Kind("Node", "nodes", ("no",), True),
    Kind("Deployment", "deployments", ("deploy",)),
    Kind("ReplicaSet", "replicasets", ("rs",)),
    Kind("StatefulSet", "statefulsets", ("sts",)),
    Kind("DaemonSet", "daemonsets", ("ds",)),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One object: cells of the table and the object itself as JSON-ready data."""

    meta: Meta
    cells: tuple[str, ...]
    item: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """A table.

    Attributes:
        kind: plural name.
        headings: of all columns; the first ``narrow`` are shown without ``-o wide``.
        found: one row per object.
    """

    kind: str
    headings: tuple[str, ...]
    narrow: int
    found: tuple[Row, ...]

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Cells of all rows."""
        return tuple(row.cells for row in self.found)

    @property
    def items(self) -> list[dict[str, Any]]:
        """Objects of all rows."""
        return [row.item for row in self.found]

    @property
    def names(self) -> list[str]:
        """``kind/namespace/name`` of all rows."""
        return [f"{self.kind}/{row.meta.title}" for row in self.found]


def find_kind(word: str) -> Kind:
    """Return the kind that a word names: ``pods``, ``pod``, ``po``, ``Pod``.

    Raises:
        InputError: none.
    """
    asked = word.lower()
    for kind in KINDS:
        if asked in (kind.plural, kind.name.lower(), *kind.short):
            return kind
    raise InputError(
        f"kind {word!r} is unknown", hint=did_you_mean(asked, (kind.plural for kind in KINDS))
    )


def listing(
    lab: Lab, state: State, kind: Kind, namespace: str = "", names: Iterable[str] = ()
) -> Listing:
    """List the objects of one kind.

    Args:
        lab: that is up.
        state: its objects.
        kind: what to list.
        namespace: only this one; empty for all.
        names: only these; empty for all.

    Raises:
        InputError: a name that there is not.
    """
    world = state.world(settled(lab))
    build = _BUILDERS.get(kind.name, _plain)
    headings, narrow, rows = build(lab, world, kind)
    wanted = list(names)
    rows = [
        row
        for row in rows
        if (not namespace or kind.cluster_wide or row.meta.namespace == namespace)
        and (not wanted or row.meta.name in wanted or row.meta.title in wanted)
    ]
    known = {row.meta.name for row in rows} | {row.meta.title for row in rows}
    for name in wanted:
        if name not in known:
            raise InputError(
                f"{kind.name} {name!r} is not in the lab", hint=f"lab get {lab.name} {kind.plural}"
            )
    return Listing(kind.plural, headings, narrow, tuple(rows))


_Table = tuple[tuple[str, ...], int, list[Row]]


def _pods(lab: Lab, world: World, _: Kind) -> _Table:
    ready = ready_pods(lab, world)
    identities = {}
    for identity in lab.agent.identities():
        identities.update({lab_name(pod): identity.id for pod in identity.pods})
    rows = []
    for pod, placed in zip(world.pods, world.topology.pods, strict=True):
        count = len(pod.spec.containers)
        # readiness is known of whole pods only
        good = count if pod.meta.title in ready else 0
        number = str(identities.get(placed.full_name, ""))
        labels = ",".join(f"{key}={value}" for key, value in sorted(pod.meta.labels.items()))
        cells = (
            pod.meta.namespace,
            pod.meta.name,
            f"{good}/{count}",
            "Running",
            str(placed.address),
            placed.node,
            number,
            pod.owner,
            labels,
        )
        item = manifest(pod)
        item["spec"]["nodeName"] = placed.node
        item["status"] = {
            "phase": "Running",
            "podIP": str(placed.address),
            "hostIP": str(lab.node(placed.node).address),
            "conditions": [{"type": "Ready", "status": str(pod.meta.title in ready)}],
        }
        rows.append(Row(pod.meta, cells, item))
    headings = (
        "namespace", "name", "ready", "status", "ip", "node", "identity", "owner", "labels"
    )  # fmt: skip
    return headings, 6, rows


def _services(lab: Lab, world: World, _: Kind) -> _Table:
    known = {item.name: item for item in lab.agent.services()}
    rows = []
    for service in world.objects.of(ServiceObject):
        status = known.get(service.meta.title)
        address = "None" if service.cluster_ip is None else (status.address if status else "")
        outside = [
            front.address
            for front in (status.frontends if status else ())
            if front.kind in ("ExternalIP", "LoadBalancer")
        ]
        # chosen by the lab: those in the manifest stand beside their ports below; a node port has a
        # frontend for each address of each node
        given = {port.node_port for port in service.ports}
        chosen = dict.fromkeys(
            front.port
            for front in (status.frontends if status else ())
            if front.kind == "NodePort" and front.port not in given
        )
        ports = ",".join(
            f"{port.port}" + (f":{port.node_port}" if port.node_port else "") + f"/{port.protocol}"
            for port in service.ports
        )
        if chosen:
            ports += " (" + ",".join(map(str, chosen)) + ")"
        selector = ",".join(f"{key}={value}" for key, value in service.selector or ())
        cells = (
            service.meta.namespace,
            service.meta.name,
            service.kind,
            address,
            ",".join(dict.fromkeys(outside)) or "<none>",
            ports,
            selector or "<none>",
        )
        item = manifest(service)
        item["spec"]["clusterIP"] = address
        rows.append(Row(service.meta, cells, item))
    headings = ("namespace", "name", "type", "cluster-ip", "external-ip", "ports", "selector")
    return headings, 6, rows


def _endpoints(lab: Lab, world: World, _: Kind) -> _Table:
    ready = ready_pods(lab, world)
    places = {f"{p.namespace}/{p.name}": p for p in world.topology.pods}
    rows = []
    for service in world.objects.of(ServiceObject):
        # those of a service without selector are written by hand, and listed below
        if not service.selector:
            continue
        pods = selected_pods(world, service)
        endpoints = [
            {
                "addresses": [str(places[pod.meta.title].address)],
                "conditions": {"ready": pod.meta.title in ready},
                "nodeName": places[pod.meta.title].node,
                "targetRef": {"kind": "Pod", "name": pod.meta.name},
            }
            for pod in pods
        ]
        ports = []
        for port in service.ports:
            # a named port may have another number in each pod
            numbers = {n for pod in pods if (n := target_port(pod, port)) is not None}
            ports += [
                {"name": port.name, "port": number, "protocol": port.protocol}
                for number in sorted(numbers)
            ]
        shown = ",".join(
            f"{address}:{port['port']}"
            for endpoint in endpoints
            if endpoint["conditions"]["ready"]  # type: ignore[index]
            for address in endpoint["addresses"]
            for port in ports
        )
        item = _endpoint_slice(service.meta, endpoints, ports)
        cells = (service.meta.namespace, service.meta.name, shown or "<none>")
        rows.append(Row(service.meta, cells, item))
    for given in world.objects.of(EndpointsObject):
        shown = ",".join(
            f"{address.address}:{number}"
            for address in given.addresses
            if address.ready
            for _name, number, _protocol in given.ports
        )
        cells = (given.meta.namespace, given.meta.name, shown or "<none>")
        rows.append(Row(given.meta, cells, manifest(given)))
    return ("namespace", "name", "endpoints"), 3, rows


def _endpoint_slice(
    meta: Meta, endpoints: list[dict[str, Any]], ports: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": {"kubernetes.io/service-name": meta.name},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    }


def _identities(lab: Lab, world: World, _: Kind) -> _Table:
    rows = []
    for identity in lab.agent.identities():
        users = [*identity.pods, *identity.networks]
        item = {
            "id": identity.id,
            "labels": list(identity.labels),
            "pods": list(identity.pods),
            "networks": list(identity.networks),
        }
        cells = (str(identity.id), ",".join(identity.labels), ",".join(users))
        rows.append(Row(Meta(name=str(identity.id), namespace=""), cells, item))
    return ("id", "labels", "used by"), 3, rows


def _policies(_: Lab, world: World, kind: Kind) -> _Table:
    rows = []
    for policy in world.objects.of(PolicyObject):
        if policy.kind == kind.name:
            spec = manifest(policy)
            selector = spec.get("spec", {}).get(
                "podSelector", spec.get("spec", {}).get("endpointSelector", {})
            )
            words = ",".join(
                f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()
            )
            words = words or ("<all>" if not selector else "<expressions>")
            rows.append(Row(policy.meta, (policy.meta.namespace, policy.meta.name, words), spec))
    return ("namespace", "name", "selects"), 3, rows


def _nodes(lab: Lab, world: World, _: Kind) -> _Table:
    written = {node.meta.name: node for node in world.objects.of(ClusterNode)}
    rows = []
    for node in lab.facts.nodes:
        labels = dict(written[node.name].meta.labels) if node.name in written else {}
        meta = Meta(name=node.name, namespace="", labels=labels)
        cells = (
            node.name,
            "Ready",
            str(node.address),
            str(node.pod_cidr),
            ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        )
        made = ClusterNode(meta, str(node.pod_cidr), str(node.address))
        rows.append(Row(meta, cells, manifest(made)))
    return ("name", "status", "internal-ip", "pod-cidr", "labels"), 4, rows


def _plain(_: Lab, world: World, kind: Kind) -> _Table:
    rows = []
    for item in world.objects.items:
        if isinstance(item, Namespace) and kind.name == "Namespace":
            labels = ",".join(f"{key}={value}" for key, value in sorted(item.meta.labels.items()))
            rows.append(Row(item.meta, (item.meta.name, "Active", labels), manifest(item)))
        if isinstance(item, Controller) and item.kind == kind.name:
            running = sum(pod.owner == f"{item.kind}/{item.meta.name}" for pod in world.pods)
            cells = (item.meta.namespace, item.meta.name, str(running))
            rows.append(Row(item.meta, cells, manifest(item)))
    if kind.name == "Namespace":
        return ("name", "status", "labels"), 3, rows
    return ("namespace", "name", "pods"), 3, rows


_BUILDERS: dict[str, Callable[[Lab, World, Kind], _Table]] = {
    "Pod": _pods,
    "Service": _services,
    "EndpointSlice": _endpoints,
    "Identity": _identities,
    "Node": _nodes,
    "NetworkPolicy": _policies,
    "CiliumNetworkPolicy": _policies,
    "CiliumClusterwideNetworkPolicy": _policies,
}
