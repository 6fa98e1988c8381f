"""The datapath's part of the plan: which objects on which devices, and the first map entries."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from lab.layouts.attach import (
    ATTACH_POINTS,
    OBJECTS,
    Role,
    Side,
    attach_points,
    object_of,
    private_pins,
)
from lab.layouts.core import (
    ENDPOINT_F_HOST,
    Aggregation,
    CidrKey,
    EndpointInfo,
    EndpointKey,
    Flag,
    Index,
    IpcacheKey,
    RemoteEndpointInfo,
    RuntimeSlot,
    TunnelKey,
    TunnelValue,
    Word,
)
from lab.layouts.records import Record
from lab.names import RESERVED_IDENTITIES
from lab.plan.inventory import (
    CILIUM_HOST_INDEX,
    CILIUM_NET_INDEX,
    CILIUM_VXLAN_INDEX,
    ETH0_INDEX,
    Inventory,
    NodeFacts,
    PodFacts,
)
from lab.plan.steps import AttachTc, AttachXdp, LoadObject, MakeMaps, Publish, Step, UpdateMap
from lab.policy.entries import ABSENT, EntryKey, absent, pack_value

XDP_SUFFIX = "_xdp"
"""Distinguishes the XDP object of a device from its tc object."""

HOST = RESERVED_IDENTITIES["host"]
REMOTE_NODE = RESERVED_IDENTITIES["remote-node"]
WORLD = RESERVED_IDENTITIES["world"]


def datapath_steps(facts: Inventory, node: NodeFacts) -> Iterator[Step]:
    """Yield the steps that load and attach a node's datapath and fill its maps.

    Maps come first, as in ``Daemon.initMaps``; then the node's own devices; then the pods.
    """
    yield MakeMaps(
        where=node.name,
        objects=OBJECTS,
        ct_tcp_max=facts.topology.options.ct_tcp_max,
    )
    # who is where comes before any program: the first packet must not meet an empty ipcache
    yield from node_entries(facts, node)
    for pod in node.pods:
        yield from pod_entries(node, pod)
    yield from _device(facts, node, Role.HOST, "cilium_host", CILIUM_HOST_INDEX, node.host_mac)
    yield from _device(facts, node, Role.NET, "cilium_net", CILIUM_NET_INDEX, node.net_mac)
    yield from _device(facts, node, Role.NATIVE, "eth0", ETH0_INDEX, node.mac)
    if facts.topology.options.prefilter:
        yield from _prefilter(facts, node)
    if facts.topology.options.routing == "vxlan":
        yield from _device(
            facts, node, Role.OVERLAY, "cilium_vxlan", CILIUM_VXLAN_INDEX, node.vxlan_mac
        )
    for pod in node.pods:
        yield from pod_datapath(facts, node, pod)
        yield from default_policy(node, pod)


def default_policy(node: NodeFacts, pod: PodFacts) -> Iterator[Step]:
    """Yield the entries of a pod's policy map until a policy selects it: everything is allowed."""
    for egress, what in ((False, "enter"), (True, "leave")):
        key = EntryKey(0, egress)
        name = f"cilium_policy_{pod.endpoint_id:05d}"
        note = f"anything may {what} {pod.name}: no policy selects it"
        value = pack_value(False, key)
        yield UpdateMap(
            where=node.name, map=name, key=key.pack().hex(), value=value.hex(), note=note
        )
    both = absent({EntryKey(0, egress): False for egress in (False, True)})
    note = f"no policy selects {pod.name}: only the first packet of a flow asks"
    yield _update(node, ABSENT, Index(index=pod.endpoint_id), both, note)


def node_entries(facts: Inventory, node: NodeFacts) -> Iterator[Step]:
    """Yield the entries every node has, who is where: ``cilium_ipcache``, ``cilium_tunnel_map``."""
    tunnel = facts.topology.options.routing == "vxlan"
    own = EndpointInfo(lxc_id=node.host_endpoint_id, flags=ENDPOINT_F_HOST, sec_id=HOST)
    for address in (node.address, node.router):
        yield _update(node, "cilium_lxc", EndpointKey(ip4=address), own, f"{address}: the node")
    for text in facts.topology.options.masquerade_exceptions:
        network = IPv4Network(text)
        note = f"{network} sees pods' own addresses"
        yield _update(node, "cilium_ipmasq_v4", CidrKey.of(network), Flag(value=1), note)
    note = "traces tell what is new of a flow, until a monitor listens"
    level = Word(value=Aggregation.MEDIUM)
    yield _update(node, "cilium_runtime_config", Index(index=RuntimeSlot.AGGREGATION), level, note)
    everywhere = IPv4Network("0.0.0.0/0")
    # the shortest prefix: whoever is no pod and no node is the world
    yield _ipcache(node, everywhere, WORLD, None)
    for other in facts.nodes:
        mine = other is node
        via = other.address if tunnel and not mine else None
        # nodes reach one another without the tunnel; only what is behind them needs it
        yield _ipcache(node, IPv4Network(other.address), HOST if mine else REMOTE_NODE, None)
        yield _ipcache(node, IPv4Network(other.router), HOST if mine else REMOTE_NODE, via)
        if via:
            key = TunnelKey(ip4=other.pod_cidr.network_address)
            note = f"{other.pod_cidr} at {other.name}"
            yield _update(node, "cilium_tunnel_map", key, TunnelValue(ip4=other.address), note)
        for pod in other.pods:
            yield _ipcache(node, IPv4Network(pod.address), pod.identity, via)


def _ipcache(
    node: NodeFacts, network: IPv4Network, identity: int, via: IPv4Address | None
) -> UpdateMap:
    note = f"{network} has identity {identity}" + (f" behind {via}" if via else "")
    value = who_is_behind(identity, via)
    return _update(node, "cilium_ipcache", IpcacheKey.of(network), value, note)


def who_is_behind(identity: int, via: IPv4Address | None) -> RemoteEndpointInfo:
    """Return the ipcache's value for an identity, behind the tunnel to a node if ``via``."""
    return RemoteEndpointInfo(sec_identity=identity, tunnel_endpoint=via or IPv4Address(0))


def pod_entries(node: NodeFacts, pod: PodFacts) -> Iterator[Step]:
    """Yield what only a pod's own node holds: its endpoint in ``cilium_lxc``."""
    note = f"{pod.address} is endpoint {pod.endpoint_id}, pod {pod.name}"
    key = EndpointKey(ip4=pod.address)
    yield _update(node, "cilium_lxc", key, endpoint_info(pod, pod.identity), note)


def endpoint_info(pod: PodFacts, identity: int) -> EndpointInfo:
    """Return a pod's value in ``cilium_lxc``."""
    return EndpointInfo(
        ifindex=pod.lxc_index,
        lxc_id=pod.endpoint_id,
        mac=pod.mac,
        node_mac=pod.lxc_mac,
        sec_id=identity,
    )


def _update(node: NodeFacts, name: str, key: Record, value: Record, note: str) -> UpdateMap:
    memory, content = key.pack().hex(), value.pack().hex()
    return UpdateMap(where=node.name, map=name, key=memory, value=content, note=note)


def pod_datapath(facts: Inventory, node: NodeFacts, pod: PodFacts) -> Iterator[Step]:
    """Yield the steps that load and attach the programs of one pod's endpoint."""
    yield from _device(
        facts,
        node,
        Role.LXC,
        pod.lxc,
        pod.lxc_index,
        pod.lxc_mac,
        endpoint_id=pod.endpoint_id,
        endpoint_ipv4=pod.address,
        security_identity=pod.identity,
    )


def _device(
    facts: Inventory,
    node: NodeFacts,
    role: Role,
    device: str,
    index: int,
    mac: str,
    *,
    endpoint_id: int = 0,
    endpoint_ipv4: IPv4Address | None = None,
    security_identity: int = HOST,
) -> Iterator[Step]:
    # what is no pod's belongs to the node's own endpoint
    endpoint = endpoint_id or node.host_endpoint_id
    pins = private_pins(role, endpoint_id=endpoint, ifindex=index)
    own = {
        "endpoint_id": endpoint,
        "endpoint_ipv4": str(endpoint_ipv4 or node.router),
        "security_identity": security_identity,
        "interface_mac": mac,
        "interface_ifindex": index,
    }
    config = {**own, **node_config(facts, node)}
    if role in (Role.HOST, Role.NET):
        # both happen on the uplink: half of the verifier's work would be for nothing here
        config |= {"enable_nodeport": False, "enable_masquerade": False}
    name = object_of(role)
    yield LoadObject(
        where=node.name,
        object=name,
        instance=device,
        pins=tuple(sorted(pins.items())),
        config=tuple(config.items()),
    )
    for point in attach_points(role, name, optional=facts.topology.options.endpoint_routes):
        if point.side is not Side.XDP:
            yield AttachTc(
                where=node.name,
                device=device,
                direction=point.side.value,
                instance=device,
                program=point.program,
                tcx=facts.topology.options.tcx,
            )
    # last: others may call the endpoint's policy only once its own programs are in their hooks
    yield Publish(where=node.name, instance=device)


def _prefilter(facts: Inventory, node: NodeFacts) -> Iterator[Step]:
    """XDP on the uplink, in the stack: a veth's driver would need XDP on its other end too."""
    (point,) = [item for item in ATTACH_POINTS if item.side is Side.XDP]
    instance = f"eth0{XDP_SUFFIX}"
    pins = private_pins(
        Role.NATIVE, endpoint_id=node.host_endpoint_id, ifindex=ETH0_INDEX, xdp=True
    )
    config = {**node_config(facts, node), "enable_prefilter": True}
    yield LoadObject(
        where=node.name,
        object=point.object,
        instance=instance,
        pins=tuple(sorted(pins.items())),
        config=tuple(config.items()),
    )
    yield AttachXdp(
        where=node.name,
        device="eth0",
        instance=instance,
        program=point.program,
        mode="xdpgeneric",
    )
    yield Publish(where=node.name, instance=instance)


def node_config(facts: Inventory, node: NodeFacts) -> dict[str, str | int | bool]:
    """Return the load-time constants that all objects of a node share (``bpf/lib/config.h``).

    Addresses and MACs are text here and bytes in network order once loaded.
    """
    options = facts.topology.options
    # a mask of all ones and no address: nobody's network
    shown = IPv4Network(options.native_routing_cidr or "0.0.0.0/32")
    return {
        "router_ipv4": str(node.router),
        "router_mac": node.host_mac,
        "node_ipv4": str(node.address),
        "host_ifindex": CILIUM_HOST_INDEX,
        "cilium_net_ifindex": CILIUM_NET_INDEX,
        "tunnel_ifindex": CILIUM_VXLAN_INDEX,
        "native_ifindex": ETH0_INDEX,
        "pod_cidr_mask": str(node.pod_cidr.netmask),
        "pods_mask": str(facts.pods_network(node).netmask),
        "enable_tunnel": options.routing == "vxlan",
        "enable_endpoint_routes": options.endpoint_routes,
        "enable_host_routing": options.host_routing == "bpf",
        "enable_masquerade": options.masquerade == "bpf",
        "enable_nodeport": True,
        "enable_dsr": options.nodeport_mode == "dsr",
        "enable_maglev": options.lb_algorithm == "maglev",
        "enable_policy": True,
        "policy_audit_mode": options.policy_audit,
        "enable_custom_calls": options.custom_calls,
        "inline_tail_calls": options.inline_tail_calls,
        "native_routing_cidr": str(shown.network_address),
        "native_routing_cidr_mask": str(shown.netmask),
        "native_mtu": options.mtu,
        "ct_tcp_max": options.ct_tcp_max,
    }
