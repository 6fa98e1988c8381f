"""Devices, addresses, routes and rules of one namespace, by interface index."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network

from lab.kernel.netns import NetworkNamespace
from lab.names import LOCAL_TABLE, MAIN_TABLE

RTN_LOCAL = 2
SCOPES = {"global": 0, "link": 253, "host": 254, "": None}


def add_veth(
    here: NetworkNamespace,
    there: NetworkNamespace,
    *,
    device: tuple[str, int, str],
    peer: tuple[str, int, str],
    mtu: int,
) -> None:
    """Make a veth pair, one end in each namespace, both down.

    Args:
        here: namespace of ``device``.
        there: namespace of ``peer``; may be the same.
        device: name, interface index and MAC.
        peer: name, interface index and MAC.
        mtu: of both ends, in bytes.
    """
    other: dict[str, object] = {
        "ifname": peer[0],
        "index": peer[1],
        "address": peer[2],
        "mtu": mtu,
    }
    # made in its namespace at once: a name taken in this one does not matter
    if there is not here:
        other["net_ns_fd"] = there.fd
    here.request(
        "link",
        "add",
        ifname=device[0],
        index=device[1],
        address=device[2],
        mtu=mtu,
        kind="veth",
        peer=other,
    )


def add_bridge(here: NetworkNamespace, name: str, index: int, mac: str, mtu: int) -> None:
    """Make a bridge without spanning tree and multicast snooping."""
    here.request(
        "link",
        "add",
        ifname=name,
        index=index,
        address=mac,
        mtu=mtu,
        kind="bridge",
        br_stp_state=0,
        br_mcast_snooping=0,
    )


def add_vxlan(here: NetworkNamespace, name: str, index: int, mac: str, mtu: int, port: int) -> None:
    """Make a VXLAN device in collect-metadata mode on UDP ``port``."""
    here.request(
        "link",
        "add",
        ifname=name,
        index=index,
        address=mac,
        mtu=mtu,
        kind="vxlan",
        # the programs give identity and peer with each packet; there is nothing to learn or look up
        vxlan_collect_metadata=True,
        vxlan_learning=False,
        vxlan_port=port,
    )


def set_up(here: NetworkNamespace, index: int, *, arp: bool = True) -> None:
    """Bring a device up; without ``arp`` it never resolves neighbours (IFF_NOARP)."""
    if arp:
        here.request("link", "set", index=index, state="up")
    else:
        here.request("link", "set", index=index, state="up", arp=False)


def set_master(here: NetworkNamespace, index: int, master: int) -> None:
    """Make a device a port of a bridge."""
    here.request("link", "set", index=index, master=master)


def delete(here: NetworkNamespace, index: int) -> None:
    """Remove a device (and the other end of a veth pair)."""
    here.request("link", "del", index=index)


def add_address(here: NetworkNamespace, index: int, address: str, scope: str = "global") -> None:
    """Give a device an IPv4 address written ``10.0.1.10/32``."""
    host, _, length = address.partition("/")
    here.request(
        "addr", "add", index=index, address=host, prefixlen=int(length), scope=SCOPES[scope]
    )


def add_route(
    here: NetworkNamespace,
    index: int,
    destination: str,
    *,
    via: str = "",
    source: str = "",
    scope: str = "",
    mtu: int = 0,
    table: int = MAIN_TABLE,
    kind: str = "unicast",
) -> None:
    """Add an IPv4 route through a device.

    Args:
        here: the namespace.
        index: of the outgoing device.
        destination: network, address or ``default``.
        via: gateway.
        source: preferred source address.
        scope: ``link``, ``host`` or empty for what the kernel derives.
        mtu: route MTU in bytes, 0 for the device's.
        table: routing table.
        kind: ``unicast`` or ``local``.
    """
    network = IPv4Network("0.0.0.0/0" if destination == "default" else destination)
    arguments: dict[str, object] = {"dst": str(network), "oif": index, "table": table}
    if via:
        arguments["gateway"] = via
    if source:
        arguments["prefsrc"] = source
    if scope:
        arguments["scope"] = SCOPES[scope]
    if mtu:
        arguments["metrics"] = {"mtu": mtu}
    if kind == "local":
        arguments["type"] = RTN_LOCAL
    here.request("route", "add", **arguments)


def add_rule(
    here: NetworkNamespace, priority: int, table: int, *, fwmark: int = 0, fwmask: int = 0
) -> None:
    """Add a rule to the routing policy database."""
    mark = {"fwmark": fwmark, "fwmask": fwmask} if fwmask else {}
    here.request("rule", "add", priority=priority, table=table, family=socket.AF_INET, **mark)


def delete_rule(here: NetworkNamespace, priority: int) -> None:
    """Remove the rule of that priority."""
    here.request("rule", "del", priority=priority, family=socket.AF_INET, table=LOCAL_TABLE)


def limit_rate(here: NetworkNamespace, index: int, rate_mbit: float) -> None:
    """Attach a token bucket of ``rate_mbit`` Mbit/s and 20 ms of queue (``sch_tbf``)."""
    here.request(
        "tc",
        "add",
        kind="tbf",
        index=index,
        handle="1:",
        rate=f"{rate_mbit}mbit",
        burst=32 * 1024,
        latency="20ms",
    )
