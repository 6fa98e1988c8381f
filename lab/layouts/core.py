"""Keys and values of the maps that say who is where: endpoints, identities, tunnels, metrics.

Sizes as in Cilium 1.13; see `lab.layouts.maps` for which structure belongs to which map.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar, Self

from lab.layouts.records import Record, be16, ipv4, mac_address, padding, u8, u16, u32, u64

FAMILY_IPV4 = 1
"""The ``family`` of every key that could also hold an IPv6 address."""

STATIC_PREFIX = 32
"""Bits in front of the address in an ipcache key, always compared in full."""

ENDPOINT_F_HOST = 1
"""Flag of a ``cilium_lxc`` entry: an address of the node itself."""

POLICY_EGRESS, POLICY_WILD_SHIFT, POLICY_PORT_ZERO = 1, 1, 0x20
"""Bits of ``PolicyKey.egress_wild``, under their names in ``bpf/lib/policy.h``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Record):
    """A plain ``__u32`` key or value: array index, CPU, tail-call slot, program or map id."""

    C_NAME: ClassVar[str] = ""
    index: int = u32()


@dataclass(frozen=True, slots=True, kw_only=True)
class Word(Record):
    """A plain ``__u64`` value."""

    C_NAME: ClassVar[str] = ""
    value: int = u64()


class Aggregation(IntEnum):
    """How much the datapath tells of passing packets (``enum monitor_aggregation``)."""

    NONE = 0
    MEDIUM = 3


class RuntimeSlot(IntEnum):
    """Words of ``cilium_runtime_config``; ``enum runtime_config`` in ``bpf/lib/events.h``."""

    UTIME_OFFSET = 0
    AGENT_LIVENESS = 1
    AGGREGATION = 2
    MIND = 3
    MIND_LOST = 4
    CT_TCP_CREATED = 5
    CT_TCP_REMOVED = 6
    CT_ANY_CREATED = 7
    CT_ANY_REMOVED = 8
    NAT_CREATED = 9
    NAT_REMOVED = 10


LIVES = {
    "cilium_ct4_global": (RuntimeSlot.CT_TCP_CREATED, RuntimeSlot.CT_TCP_REMOVED),
    "cilium_ct_any4_global": (RuntimeSlot.CT_ANY_CREATED, RuntimeSlot.CT_ANY_REMOVED),
    "cilium_snat_v4_external": (RuntimeSlot.NAT_CREATED, RuntimeSlot.NAT_REMOVED),
}
"""Where it is counted how many entries a table was given, and how many the agent took out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Record):
    """A one-byte value that only says "is in the map"."""

    C_NAME: ClassVar[str] = ""
    value: int = u8()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointKey(Record):
    """Key of ``cilium_lxc``: an address that this node delivers to."""

    C_NAME: ClassVar[str] = "endpoint_key"
    ip4: IPv4Address = ipv4()
    # Cilium's union holds an IPv6 address as well: 16 bytes in every such key and value
    ip_rest: bytes = padding(12)
    family: int = u8(FAMILY_IPV4)
    key: int = u8()
    cluster_id: int = u16()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointInfo(Record):
    """Value of ``cilium_lxc``: how to reach the endpoint behind an address.

    ``mac`` is the pod's own, ``node_mac`` that of its veth's host end, whose index is ``ifindex``.
    """

    C_NAME: ClassVar[str] = "endpoint_info"
    ifindex: int = u32()
    unused: bytes = padding(2)
    lxc_id: int = u16()
    flags: int = u32()
    pad: bytes = padding(4)
    mac: str = mac_address()
    node_mac: str = mac_address()
    sec_id: int = u32()
    parent_ifindex: int = u32()
    pad2: bytes = padding(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcacheKey(Record):
    """Key of ``cilium_ipcache``: a prefix; ``prefixlen`` counts from the start of the key."""

    C_NAME: ClassVar[str] = "ipcache_key"
    prefixlen: int = u32(STATIC_PREFIX + 32)
    cluster_id: int = u16()
    pad: bytes = padding(1)
    family: int = u8(FAMILY_IPV4)
    ip4: IPv4Address = ipv4()
    ip_rest: bytes = padding(12)

    @classmethod
    def of(cls, network: IPv4Network) -> IpcacheKey:
        """Return the key of a prefix."""
        return cls(prefixlen=STATIC_PREFIX + network.prefixlen, ip4=network.network_address)

    @property
    def network(self) -> IPv4Network:
        """The prefix itself."""
        return IPv4Network((self.ip4, self.prefixlen - STATIC_PREFIX))


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteEndpointInfo(Record):
    """Value of ``cilium_ipcache``: identity of a prefix and the node to reach it through."""

    C_NAME: ClassVar[str] = "remote_endpoint_info"
    sec_identity: int = u32()
    tunnel_endpoint: IPv4Address = ipv4()
    pad: bytes = padding(2)
    key: int = u8()
    flags: int = u8()


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelKey(Record):
    """Key of ``cilium_tunnel_map``: network address of a node's pod CIDR."""

    C_NAME: ClassVar[str] = "tunnel_map_key"
    ip4: IPv4Address = ipv4()
    ip_rest: bytes = padding(12)
    family: int = u8(FAMILY_IPV4)
    cluster_id: int = u8()
    pad: bytes = padding(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelValue(Record):
    """Value of ``cilium_tunnel_map``: the node's address on the underlay."""

    C_NAME: ClassVar[str] = "tunnel_map_value"
    ip4: IPv4Address = ipv4()
    ip_rest: bytes = padding(12)
    family: int = u8(FAMILY_IPV4)
    key: int = u8()
    pad: bytes = padding(2)


METRICS_DIR_BITS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsKey(Record):
    """Index of ``cilium_metrics``: why, and in which direction (1 ingress, 2 egress, 3 service).

    A number, whose two lowest bits are the direction: what most packets count lies side by side.
    """

    C_NAME: ClassVar[str] = ""
    reason: int = u8()
    dir: int = u8()
    reserved: bytes = padding(2)

    def pack(self) -> bytes:
        """Return the index, four bytes."""
        return (self.reason << METRICS_DIR_BITS | self.dir).to_bytes(4, "little")

    @classmethod
    def unpack(cls, memory: bytes) -> Self:
        """Read an index of four bytes."""
        index = int.from_bytes(memory[:4], "little")
        return cls(reason=index >> METRICS_DIR_BITS, dir=index & (1 << METRICS_DIR_BITS) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsValue(Record):
    """Value of ``cilium_metrics``, one per CPU."""

    C_NAME: ClassVar[str] = "metrics_value"
    count: int = u64()
    bytes: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyKey(Record):
    """Key of ``cilium_policy_NNNNN``: identity, port or block of ports, protocol, direction.

    ``egress_wild``: bit 0 egress; 1..4 how many low bits of the port may be anything, for a block
    of ports; 5 port 0 itself: a ``dport`` of 0 means all ports, as ``protocol`` 0 all protocols.
    """

    C_NAME: ClassVar[str] = "policy_key"
    sec_label: int = u32()
    dport: int = be16()
    protocol: int = u8()
    egress_wild: int = u8()

    @property
    def egress(self) -> bool:
        """Whether the entry is about what the endpoint sends."""
        return bool(self.egress_wild & POLICY_EGRESS)

    @property
    def wild_bits(self) -> int:
        """How many low bits of the port may be anything, 0 to 16."""
        wild = self.egress_wild >> POLICY_WILD_SHIFT & 15
        if wild or self.dport or self.egress_wild & POLICY_PORT_ZERO:
            return wild
        return 16

    @property
    def compared_bits(self) -> int:
        """How many bits of protocol and port are compared: 0, 8, or up to 24."""
        return 24 - self.wild_bits if self.protocol else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEntry(Record):
    """Value of ``cilium_policy_NNNNN``; ``flags``: bit 0 deny, 3..7 bits that the key compares."""

    C_NAME: ClassVar[str] = "policy_entry"
    proxy_port: int = be16()
    flags: int = u8()
    auth_type: int = u8()
    pad: bytes = padding(4)
    packets: int = u64()
    bytes: int = u64()

    @property
    def deny(self) -> bool:
        """Whether the entry forbids what it matches."""
        return bool(self.flags & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAbsent(Record):
    """Value of ``cilium_policy_absent``: what an endpoint's policy map has nothing of.

    Bits of each direction: 0..17 classes of entries (see `lab.policy.entries`) with a peer's
    identity, 32..49 the same with identity 0, 63 no policy selects the endpoint.
    """

    C_NAME: ClassVar[str] = "policy_absent"
    egress: int = u64()
    ingress: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class CidrKey(Record):
    """Key of a set of IPv4 prefixes: ``cilium_ipmasq_v4``, the prefilter, ``world_cidrs4``."""

    C_NAME: ClassVar[str] = "cidr4_key"
    prefixlen: int = u32(32)
    addr: IPv4Address = ipv4()

    @classmethod
    def of(cls, network: IPv4Network) -> CidrKey:
        """Return the key of a prefix."""
        return cls(prefixlen=network.prefixlen, addr=network.network_address)

    @property
    def network(self) -> IPv4Network:
        """The prefix itself."""
        return IPv4Network((self.addr, self.prefixlen))


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptConfig(Record):
    """Value of ``cilium_encrypt_state``: index of the key in use."""

    C_NAME: ClassVar[str] = ""
    encrypt_key: int = u8()
