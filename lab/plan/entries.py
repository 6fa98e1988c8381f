"""Bytes of the map entries that a plan writes; sizes as in Cilium 1.13.

The C structs are in ``bpf/lib`` (eps.h, ipcache.h, encap.h); the alignment test compares both.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network

FAMILY_IPV4 = 1
ENDPOINT_F_HOST = 1
IPCACHE_STATIC_PREFIX = 32


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", "")) + b"\0\0"


def lxc_key(address: IPv4Address) -> bytes:
    """Return the 20 bytes of ``struct endpoint_key``."""
    return struct.pack("<4s12xBBH", address.packed, FAMILY_IPV4, 0, 0)


def lxc_value(
    *,
    ifindex: int = 0,
    endpoint_id: int,
    host: bool = False,
    mac: str = "00:00:00:00:00:00",
    node_mac: str = "00:00:00:00:00:00",
    identity: int,
) -> bytes:
    """Return the 48 bytes of ``struct endpoint_info``."""
    return struct.pack(
        "<IHHII8s8sIIII",
        ifindex,
        0,
        endpoint_id,
        ENDPOINT_F_HOST if host else 0,
        0,
        _mac(mac),
        _mac(node_mac),
        identity,
        0,
        0,
        0,
    )


def ipcache_key(network: IPv4Network) -> bytes:
    """Return the 24 bytes of ``struct ipcache_key``."""
    prefix = IPCACHE_STATIC_PREFIX + network.prefixlen
    return struct.pack("<IHBB4s12x", prefix, 0, 0, FAMILY_IPV4, network.network_address.packed)


def ipcache_value(identity: int, tunnel_endpoint: IPv4Address | None = None) -> bytes:
    """Return the 12 bytes of ``struct remote_endpoint_info``."""
    tunnel = tunnel_endpoint.packed if tunnel_endpoint else bytes(4)
    return struct.pack("<I4sHBB", identity, tunnel, 0, 0, 0)


def cidr_key(network: IPv4Network) -> bytes:
    """Return the 8 bytes of ``struct ipmasq_key``."""
    return struct.pack("<I4s", network.prefixlen, network.network_address.packed)


def tunnel_key(network: IPv4Network) -> bytes:
    """Return the 20 bytes of ``struct tunnel_map_key``: a node's pod CIDR."""
    return struct.pack("<4s12xBBH", network.network_address.packed, FAMILY_IPV4, 0, 0)


def tunnel_value(node: IPv4Address) -> bytes:
    """Return the 20 bytes of ``struct tunnel_map_value``: where that node is."""
    return struct.pack("<4s12xBBH", node.packed, FAMILY_IPV4, 0, 0)
