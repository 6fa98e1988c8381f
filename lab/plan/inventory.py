"""Every name, address and number of a lab, computed from its description alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any, TypeVar

from lab.errors import TopologyError
from lab.model import (
    CLUSTER_NETWORK,
    FIRST_POD_OFFSET,
    LOAD_BALANCER_NETWORK,
    WORLD_CLIENT,
    Node,
    Pod,
    Topology,
)
from lab.names import (
    RESERVED_IDENTITIES,
    did_you_mean,
    endpoint_id,
    label_key,
    lxc_interface,
    mac_address,
)
from lab.policy.identities import IdentityTable, Refinement, pod_labels
from lab.policy.objects import Cluster, Machine, Semantics, Workload

ETH0_INDEX = 2
CILIUM_NET_INDEX = 3
CILIUM_HOST_INDEX = 4
CILIUM_VXLAN_INDEX = 5
FIRST_LXC_INDEX = 10
"""Interface indices are chosen, not awaited: maps that hold them can be planned."""

VXLAN_OVERHEAD = 50
"""Bytes that outer Ethernet, IPv4, UDP and VXLAN headers add (RFC 7348)."""

T = TypeVar("T")

UNDERLAY = "underlay"
WORLD = "world"
BRIDGE = "br0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What a pod is to its node and to the datapath.

    Attributes:
        name: unique in the lab, also the name of its network namespace (``/`` becomes ``.``).
        netns: name of the network namespace.
        lxc: name of the node's end of the veth pair; ``lxc_index`` its interface index.
        identity: security identity of its labels.
        endpoint_id: 16 bits, unique on its node.
    """

    name: str
    netns: str
    node: str
    labels: tuple[str, ...]
    namespace: str
    address: IPv4Address
    mac: str
    lxc: str
    lxc_mac: str
    lxc_index: int
    endpoint_id: int
    identity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node is to the underlay and to the datapath.

    Attributes:
        number: 1 for the first node of the description.
        address: in the underlay; ``router`` is the address of ``cilium_host``.
        host_endpoint_id: endpoint id of the node itself.
    """

    name: str
    number: int
    address: IPv4Address
    mac: str
    pod_cidr: IPv4Network
    router: IPv4Address
    host_mac: str
    net_mac: str
    vxlan_mac: str
    host_endpoint_id: int
    pods: tuple[PodFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All facts of a lab.

    Attributes:
        identities: sorted labels with their sources -> security identity.
        last_identity: the one given last; those before it that are free are not given again soon.
        gateway: the underlay address of the ``world`` namespace, the nodes' default route.
    """

    topology: Topology
    nodes: tuple[NodeFacts, ...]
    identities: dict[tuple[str, ...], int]
    last_identity: int
    underlay: IPv4Network
    gateway: IPv4Address
    world_client: IPv4Address

    @property
    def pods(self) -> tuple[PodFacts, ...]:
        """All pods, node by node."""
        return tuple(pod for node in self.nodes for pod in node.pods)

    def pods_network(self, node: NodeFacts) -> IPv4Network:
        """Return a network with the pods of a node and, where nothing else lies in it, of all."""
        cidrs = [other.pod_cidr for other in self.nodes]
        found = node.pod_cidr
        while not all(cidr.subnet_of(found) for cidr in cidrs):
            found = found.supernet()
        others = (self.underlay, CLUSTER_NETWORK, LOAD_BALANCER_NETWORK)
        apart = not any(found.overlaps(other) for other in others)
        return found if apart and self.world_client not in found else node.pod_cidr

    def node(self, name: str) -> NodeFacts:
        """Return the facts of a node.

        Raises:
            TopologyError: no such node; the hint names the nearest.
        """
        return _find(name, {node.name: node for node in self.nodes}, "node")

    def pod(self, name: str) -> PodFacts:
        """Return the facts of a pod called ``POD`` or ``NAMESPACE/POD``.

        Raises:
            TopologyError: no such pod; the hint names the nearest.
        """
        return _find(name.removeprefix("default/"), {pod.name: pod for pod in self.pods}, "pod")

    def owner_of(self, address: IPv4Address) -> str | None:
        """Return the pod, node or ``world`` that an address belongs to."""
        for node in self.nodes:
            if address in (node.address, node.router):
                return node.name
            for pod in node.pods:
                if pod.address == address:
                    return pod.name
        return WORLD if address in (self.gateway, self.world_client) else None


def _find(name: str, known: dict[str, T], what: str) -> T:
    try:
        return known[name]
    except KeyError:
        raise TopologyError(
            f"{what} {name!r} does not exist in this lab", hint=did_you_mean(name, known)
        ) from None


def inventory(
    topology: Topology,
    identities: Mapping[tuple[str, ...], int] | None = None,
    last_identity: int = 0,
) -> Inventory:
    """Compute all names, addresses and numbers of a topology.

    Pods with an explicit address keep it; the others get the next free one of their node's
    CIDR, from ``.10`` on, in the order of the description.

    Args:
        topology: the description.
        identities: of an earlier inventory, to keep those that are still in use.
        last_identity: of the same.
    """
    addresses = _pod_addresses(topology)
    cluster = _cluster(topology, addresses)
    labels = {
        pod.full_name: pod_labels(cluster, workload, Semantics.K8S, Refinement())
        for pod, workload in zip(topology.pods, cluster.workloads, strict=True)
    }
    # a copy: what was handed in belongs to the inventory before this one
    table = IdentityTable(dict(identities or {}), last={"identities": last_identity})
    table.update(labels.values(), ())
    numbers = {name: table.allocated[key] for name, key in labels.items()}
    underlay = IPv4Network(topology.underlay_cidr)
    return Inventory(
        topology=topology,
        nodes=tuple(_node_facts(topology, node, addresses, numbers) for node in topology.nodes),
        identities=dict(table.allocated),
        last_identity=table.last["identities"],
        underlay=underlay,
        gateway=topology.gateway,
        world_client=WORLD_CLIENT,
    )


def renewed(facts: Inventory, topology: Topology) -> Inventory:
    """Return the facts of a changed topology, with the numbers that those before it had."""
    return inventory(topology, facts.identities, facts.last_identity)


def to_json(facts: Inventory) -> dict[str, Any]:
    """Return what another process needs for the same facts, as plain JSON data."""
    return {
        "topology": facts.topology.to_json(),
        "identities": [[list(labels), number] for labels, number in facts.identities.items()],
        "last_identity": facts.last_identity,
    }


def from_json(data: Mapping[str, Any]) -> Inventory:
    """Return the facts that :func:`to_json` described."""
    identities = {tuple(labels): number for labels, number in data["identities"]}
    return inventory(Topology.from_json(data["topology"]), identities, data["last_identity"])


def settled(facts: Inventory) -> Topology:
    """Return the topology with every pod's address written down, so that changes keep them."""
    if all(pod.address is not None for pod in facts.topology.pods):
        return facts.topology
    pods = tuple(
        replace(pod, address=str(facts.pod(pod.full_name).address)) for pod in facts.topology.pods
    )
    return replace(facts.topology, pods=pods)


def _cluster(topology: Topology, addresses: Mapping[str, IPv4Address]) -> Cluster:
    workloads = tuple(
        Workload(
            name=pod.name,
            namespace=pod.namespace,
            node=pod.node,
            address=str(addresses[pod.full_name]),
            labels=pod.labels,
        )
        for pod in topology.pods
    )
    return Cluster(workloads=workloads, machines=machines(topology))


def machines(topology: Topology) -> tuple[Machine, ...]:
    """Return a topology's nodes with their own addresses: underlay, then router."""
    return tuple(
        Machine(
            node.name,
            (str(topology.node_address(node)), str(topology.pod_cidr(node).network_address + 1)),
        )
        for node in topology.nodes
    )


def cluster(facts: Inventory) -> Cluster:
    """Return what policies need to know of a lab's pods and nodes."""
    return _cluster(facts.topology, {pod.name: pod.address for pod in facts.pods})


def _pod_addresses(topology: Topology) -> dict[str, IPv4Address]:
    addresses = {
        pod.full_name: IPv4Address(pod.address) for pod in topology.pods if pod.address is not None
    }
    for node in topology.nodes:
        taken = set(addresses.values())
        # without the last: it is the network's broadcast address
        hosts = iter(list(topology.pod_cidr(node))[FIRST_POD_OFFSET:-1])
        for pod in topology.pods:
            if pod.node == node.name and pod.full_name not in addresses:
                # a description that leaves no address was refused already
                # (model._check_pod_addresses)
                addresses[pod.full_name] = next(host for host in hosts if host not in taken)
    return addresses


def _node_facts(
    topology: Topology,
    node: Node,
    addresses: dict[str, IPv4Address],
    identities: Mapping[str, int],
) -> NodeFacts:
    cidr, address = topology.pod_cidr(node), topology.node_address(node)
    router = cidr.network_address + 1
    return NodeFacts(
        name=node.name,
        number=topology.nodes.index(node) + 1,
        address=address,
        mac=mac_address(0x02, address),
        pod_cidr=cidr,
        router=router,
        host_mac=mac_address(0x0A, router),
        net_mac=mac_address(0x0E, router),
        vxlan_mac=mac_address(0x12, router),
        host_endpoint_id=endpoint_id(router),
        pods=tuple(
            _pod_facts(pod, cidr, addresses[pod.full_name], identities)
            for pod in topology.pods
            if pod.node == node.name
        ),
    )


def _pod_facts(
    pod: Pod,
    cidr: IPv4Network,
    address: IPv4Address,
    identities: Mapping[str, int],
) -> PodFacts:
    offset = int(address) - int(cidr.network_address)
    reserved = [name for name in pod.labels if name.startswith("reserved:")]
    return PodFacts(
        name=pod.full_name,
        # a namespace's name is a file below /run/netns
        netns=pod.full_name.replace("/", "."),
        node=pod.node,
        labels=label_key(pod.labels),
        namespace=pod.namespace,
        address=address,
        mac=mac_address(0x02, address),
        lxc=lxc_interface(pod.name, pod.namespace),
        lxc_mac=mac_address(0x06, address),
        # follows from the address, not from the order: it stays when other pods come and go
        lxc_index=FIRST_LXC_INDEX - FIRST_POD_OFFSET + offset,
        endpoint_id=endpoint_id(address),
        identity=RESERVED_IDENTITIES[reserved[0].split(":")[1]]
        if reserved
        else identities[pod.full_name],
    )
