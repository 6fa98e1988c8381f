"""The plan of a topology: namespaces, links, addresses and routes, then the datapath."""

from __future__ import annotations

from collections.abc import Iterator

from lab.errors import UnsupportedError
from lab.model import LOAD_BALANCER_NETWORK, Topology
from lab.names import LOCAL_TABLE, VXLAN_PORT, mac_address
from lab.plan.datapath import datapath_steps
from lab.plan.inventory import (
    BRIDGE,
    CILIUM_HOST_INDEX,
    CILIUM_NET_INDEX,
    CILIUM_VXLAN_INDEX,
    ETH0_INDEX,
    UNDERLAY,
    VXLAN_OVERHEAD,
    WORLD,
    Inventory,
    NodeFacts,
    PodFacts,
    inventory,
)
from lab.plan.steps import (
    AddAddress,
    AddBridge,
    AddFirewallRule,
    AddNamespace,
    AddRoute,
    AddRule,
    AddVeth,
    AddVxlan,
    DeleteRule,
    LimitRate,
    Plan,
    SetMaster,
    SetSysctl,
    SetUp,
    Step,
)

QUIET = (
    ("ipv6.conf.all.disable_ipv6", "1"),
    ("ipv6.conf.default.disable_ipv6", "1"),
)
"""No IPv6 noise: duplicate address detection and router solicitations are packets too."""

HOST_SYSCTLS = (
    ("ipv4.conf.all.forwarding", "1"),
    # both ways of a flow need not use the same device: tunnel, routes and programs decide for each
    ("ipv4.conf.all.rp_filter", "0"),
    ("ipv4.conf.default.rp_filter", "0"),
    # the node's own addresses come in as a source on the devices of the datapath
    ("ipv4.conf.all.accept_local", "1"),
    # a pod sends everything to the router, and is not to be told of a shorter way
    ("ipv4.conf.all.send_redirects", "0"),
    ("ipv4.conf.default.send_redirects", "0"),
)
"""What Cilium's ``init.sh`` sets on a node's devices (seed 004, 2.2)."""

# Cilium's tables for what a proxy is to get, and for what one sends
_TO_PROXY, _FROM_PROXY = 2004, 2005
POD_SYSCTLS = (("ipv4.tcp_congestion_control", "reno"),)
"""A namespace inherits the machine's congestion control; a lab must not depend on it."""


def plan(topology: Topology) -> Plan:
    """Return the ordered steps that build ``topology``.

    The order is: underlay and world, then node by node its devices, routes and pods, then the
    datapath of each node. Nothing is read from the machine and nothing is changed.

    Raises:
        UnsupportedError: a link is to delay or lose packets.
    """
    _check_links(topology)
    facts = inventory(topology)
    steps = [*_underlay(facts)]
    for node in facts.nodes:
        steps += _node(facts, node)
        for pod in node.pods:
            steps += pod_steps(facts, node, pod)
    if topology.options.datapath:
        for node in facts.nodes:
            steps += datapath_steps(facts, node)
    return tuple(steps)


def _check_links(topology: Topology) -> None:
    # a lab that leaves these out would answer every question about them wrongly, and silently
    for link in topology.links:
        if link.delay_ms or link.loss_pct:
            raise UnsupportedError(
                f"link {link.a}-{link.b}: between nodes only the rate can be set",
                hint="take delay_ms and loss_pct out; experiments with two hosts "
                "(lab.wire.TwoHosts) delay and lose exactly what they are told to",
            )


def _sysctls(where: str, pairs: tuple[tuple[str, str], ...]) -> Iterator[Step]:
    for key, value in pairs:
        yield SetSysctl(where=where, key=key, value=value)


def _underlay(facts: Inventory) -> Iterator[Step]:
    mtu = facts.topology.options.mtu
    yield AddNamespace(where=UNDERLAY, role="underlay")
    yield from _sysctls(UNDERLAY, QUIET)
    # a switch forwards frames: it asks no netfilter about the packets in them
    for key in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"):
        yield SetSysctl(where=UNDERLAY, key=f"bridge.{key}", value="0", if_there=True)
    mac = mac_address(0x16, facts.underlay.network_address)
    # a bridge without a MAC of its own would take its ports' lowest, and change it with them
    yield AddBridge(where=UNDERLAY, device=BRIDGE, index=2, mac=mac, mtu=mtu)
    yield SetUp(where=UNDERLAY, device=BRIDGE)
    yield AddNamespace(where=WORLD, role="world")
    yield from _sysctls(WORLD, (*QUIET, *POD_SYSCTLS, ("ipv4.conf.all.forwarding", "1")))
    yield from _uplink(facts, WORLD, 9, mac_address(0x02, facts.gateway))
    yield AddAddress(
        where=WORLD, device="eth0", address=f"{facts.gateway}/{facts.underlay.prefixlen}"
    )
    # beyond the gateway: packets from and to it are routed, as those of a client far away are
    yield AddAddress(where=WORLD, device="lo", address=f"{facts.world_client}/32")
    yield from _world_routes(facts)


def _world_routes(facts: Inventory) -> Iterator[Step]:
    """What routers outside would know: load balancers' addresses, and pods that show their own."""
    options = facts.topology.options
    if not options.datapath:
        return
    # like a route announced to the outside: one node takes what is for load balancers and passes it
    # on
    first = facts.nodes[0]
    yield _via(WORLD, str(LOAD_BALANCER_NETWORK), first)
    # who is shown a pod's own address has to find the way back to it
    if options.masquerade == "off" or options.routing == "native" or options.unmasqueraded:
        for node in facts.nodes:
            yield _via(WORLD, str(node.pod_cidr), node)


def _via(where: str, destination: str, node: NodeFacts) -> AddRoute:
    return AddRoute(where=where, destination=destination, via=str(node.address), device="eth0")


def _uplink(facts: Inventory, where: str, port_index: int, mac: str) -> Iterator[Step]:
    """A veth pair from ``where``'s eth0 to a port of the underlay's bridge."""
    port_mac = mac_address(0x16, facts.underlay.network_address + port_index)
    yield AddVeth(
        where=UNDERLAY,
        device=where,
        index=port_index,
        mac=port_mac,
        peer_where=where,
        peer="eth0",
        peer_index=ETH0_INDEX,
        peer_mac=mac,
        mtu=facts.topology.options.mtu,
    )
    yield SetMaster(where=UNDERLAY, device=where, master=BRIDGE)
    yield SetUp(where=UNDERLAY, device=where)
    yield SetUp(where=where, device="eth0")


def _node(facts: Inventory, node: NodeFacts) -> Iterator[Step]:
    where = node.name
    yield AddNamespace(where=where, role="node", node=where)
    yield from _sysctls(where, (*QUIET, *HOST_SYSCTLS, *POD_SYSCTLS))
    yield from _uplink(facts, where, 10 + node.number, node.mac)
    yield from _shaping(facts, node)
    yield AddAddress(
        where=where, device="eth0", address=f"{node.address}/{facts.underlay.prefixlen}"
    )
    yield AddRoute(where=where, destination="default", via=str(facts.gateway), device="eth0")
    yield AddVeth(
        where=where,
        device="cilium_host",
        index=CILIUM_HOST_INDEX,
        mac=node.host_mac,
        peer_where=where,
        peer="cilium_net",
        peer_index=CILIUM_NET_INDEX,
        peer_mac=node.net_mac,
        mtu=facts.topology.options.mtu,
    )
    # the pair carries what programs hand over with ready MAC addresses; nobody is to be asked for
    # one
    yield SetUp(where=where, device="cilium_net", arp=False)
    yield SetUp(where=where, device="cilium_host", arp=False)
    yield AddAddress(where=where, device="cilium_host", address=f"{node.router}/32", scope="link")
    if facts.topology.options.routing == "vxlan":
        yield AddVxlan(
            where=where,
            device="cilium_vxlan",
            index=CILIUM_VXLAN_INDEX,
            mac=node.vxlan_mac,
            mtu=facts.topology.options.mtu,
            port=VXLAN_PORT,
        )
        yield SetUp(where=where, device="cilium_vxlan")
    yield from _node_routes(facts, node)
    # without programs nothing marks packets, and rules cost every packet that is routed
    if facts.topology.options.datapath and facts.topology.options.proxy_rules:
        yield from _node_rules(node)
    if facts.topology.options.masquerade == "iptables":
        yield from _netfilter_masquerade(facts, node)


def _shaping(facts: Inventory, node: NodeFacts) -> Iterator[Step]:
    # one uplink carries all links of a node: the slowest of them is what it may send
    rates = [
        link.rate_mbit
        for link in facts.topology.links
        if link.rate_mbit is not None and node.name in (link.a, link.b)
    ]
    if rates:
        yield LimitRate(where=node.name, device="eth0", rate_mbit=min(rates))


def _node_routes(facts: Inventory, node: NodeFacts) -> Iterator[Step]:
    router = str(node.router)
    # before those that go via it: the kernel takes a gateway only if it is on a link
    yield AddRoute(where=node.name, destination=router, device="cilium_host", scope="link")
    tunnel = facts.topology.options.routing == "vxlan"
    for other in facts.nodes:
        if other is node or tunnel:
            yield AddRoute(
                where=node.name,
                destination=str(other.pod_cidr),
                via=router,
                device="cilium_host",
                source=router,
                # what stays on the node is never encapsulated: it may have the device's full size
                mtu=0 if other is node else pod_mtu(facts),
            )
        else:
            yield AddRoute(
                where=node.name,
                destination=str(other.pod_cidr),
                via=str(other.address),
                device="eth0",
            )


def _node_rules(node: NodeFacts) -> Iterator[Step]:
    """Proxy routing as ``init.sh`` sets it up: the local table moves behind pref 9 and 10."""
    where, router = node.name, str(node.router)
    # added before the one at 0 goes: without either the node would not know its own addresses
    yield AddRule(where=where, priority=100, table=LOCAL_TABLE)
    yield DeleteRule(where=where, priority=0)
    # MARK_MAGIC_TO_PROXY: delivered here, whatever the destination; hence before the local table
    yield AddRule(where=where, priority=9, table=_TO_PROXY, fwmark=0x200, fwmask=0xF00)
    yield AddRule(where=where, priority=10, table=_FROM_PROXY, fwmark=0xA00, fwmask=0xF00)
    yield AddRoute(
        where=where,
        destination="0.0.0.0/0",
        device="lo",
        kind="local",
        table=_TO_PROXY,
        scope="host",
    )
    yield AddRoute(
        where=where, destination=router, device="cilium_host", scope="link", table=_FROM_PROXY
    )
    yield AddRoute(
        where=where, destination="default", via=router, device="cilium_host", table=_FROM_PROXY
    )


def _netfilter_masquerade(facts: Inventory, node: NodeFacts) -> Iterator[Step]:
    """Masquerade by netfilter: in Cilium's chain, what leaves the cluster and comes from a pod."""
    chain = "CILIUM_POST_nat"
    nat = ("-t", "nat")
    # the chain is left at the first rule that fits, so exceptions come first
    outside: list[tuple[str, ...]] = [
        ("-A", chain, "-d", str(other.pod_cidr), "-j", "RETURN") for other in facts.nodes
    ]
    for network in facts.topology.options.unmasqueraded:
        outside.append(("-A", chain, "-d", str(network), "-j", "RETURN"))
    if facts.topology.options.routing == "native":
        # nodes route to pods directly then, and see their own addresses
        outside.append(("-A", chain, "-d", str(facts.underlay), "-j", "RETURN"))
    rules = (
        ("-N", chain),
        ("-A", "POSTROUTING", "-j", chain),
        *outside,
        # what goes out through a device of the datapath stays inside: host and tunnel keep the
        # pod's address
        ("-A", chain, "-s", str(node.pod_cidr), "!", "-o", "cilium_+", "-j", "MASQUERADE"),
    )
    for words in rules:
        yield AddFirewallRule(where=node.name, words=(*nat, *words))


def pod_mtu(facts: Inventory) -> int:
    """Return the MTU of a pod's route in bytes: less the tunnel's headers where there is one."""
    options = facts.topology.options
    return options.mtu - VXLAN_OVERHEAD if options.routing == "vxlan" else options.mtu


def pod_steps(facts: Inventory, node: NodeFacts, pod: PodFacts) -> Iterator[Step]:
    """Yield the steps that attach one pod to its node, without its datapath."""
    yield AddNamespace(where=pod.netns, role="pod", node=node.name)
    yield from _sysctls(pod.netns, (*QUIET, *POD_SYSCTLS))
    yield AddVeth(
        where=node.name,
        device=pod.lxc,
        index=pod.lxc_index,
        mac=pod.lxc_mac,
        peer_where=pod.netns,
        peer="eth0",
        peer_index=ETH0_INDEX,
        peer_mac=pod.mac,
        mtu=facts.topology.options.mtu,
    )
    yield SetUp(where=node.name, device=pod.lxc)
    yield SetUp(where=pod.netns, device="eth0")
    # alone in its network: even a neighbour on the same node is reached through the router, and so
    # through the datapath
    yield AddAddress(where=pod.netns, device="eth0", address=f"{pod.address}/32")
    yield AddRoute(where=pod.netns, destination=str(node.router), device="eth0", scope="link")
    mtu = pod_mtu(facts)
    yield AddRoute(
        where=pod.netns,
        destination="default",
        via=str(node.router),
        device="eth0",
        # on the route, not on the device: what arrives may have the full size, as in Cilium
        mtu=mtu if mtu != facts.topology.options.mtu else 0,
    )
    if facts.topology.options.endpoint_routes:
        yield AddRoute(where=node.name, destination=str(pod.address), device=pod.lxc, scope="link")
