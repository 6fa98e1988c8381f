"""Keys and values of the maps that remember flows: conntrack, NAT, fragments, services.

Tuples in ``cilium_ct4_global`` hold what *answering* packets carry for flows (addresses swapped,
ports in true order) and true addresses with swapped ports for services; NAT tuples are in packet
order. Ports are plain numbers here and network order in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address, IPv4Network
from typing import ClassVar

from lab.layouts.records import Record, be16, ipv4, mac_address, padding, u8, u16, u32, u64

MAGLEV_SIZE = 1021
"""Backend ids in a Maglev table, a prime (``MAGLEV_TABLE_SIZE`` in ``bpf/lib/lb.h``)."""

_RANGE_STATIC = 32


class TupleFlag(IntFlag):
    """``flags`` of a tuple."""

    OUT = 0
    IN = 1
    RELATED = 2
    SERVICE = 4


class CtFlag(IntFlag):
    """``flags`` of a conntrack entry, named as ``ct list`` prints them."""

    RxClosing = 1 << 0
    TxClosing = 1 << 1
    Nat64 = 1 << 2
    LBLoopback = 1 << 3
    SeenNonSyn = 1 << 4
    NodePort = 1 << 5
    ProxyRedirect = 1 << 6
    DSRInternal = 1 << 7
    FromL7LB = 1 << 8
    FromTunnel = 1 << 10


class ServiceFlag(IntFlag):
    """``flags`` of a service's master row; the second byte of C's pair counts from bit 8."""

    EXTERNAL_IP = 1 << 0
    NODEPORT = 1 << 1
    EXT_LOCAL_SCOPE = 1 << 2
    HOSTPORT = 1 << 3
    AFFINITY = 1 << 4
    LOADBALANCER = 1 << 5
    ROUTABLE = 1 << 6
    SOURCE_RANGE = 1 << 7
    LOCALREDIRECT = 1 << 8
    NAT_46X64 = 1 << 9
    L7_LOADBALANCER = 1 << 10
    LOOPBACK = 1 << 11
    INT_LOCAL_SCOPE = 1 << 12
    TWO_SCOPES = 1 << 13
    QUARANTINED = 1 << 14
    FWD_MODE_DSR = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuple4(Record):
    """Key of the conntrack and NAT maps."""

    C_NAME: ClassVar[str] = "ipv4_ct_tuple"
    daddr: IPv4Address = ipv4()
    saddr: IPv4Address = ipv4()
    dport: int = be16()
    sport: int = be16()
    nexthdr: int = u8()
    flags: int = u8()


@dataclass(frozen=True, slots=True, kw_only=True)
class CtEntry(Record):
    """Value of the conntrack maps; times are seconds of the monotonic clock.

    ``rx_bytes`` of a service's entry is its backend's id.
    """

    C_NAME: ClassVar[str] = "ct_entry"
    rx_packets: int = u64()
    rx_bytes: int = u64()
    tx_packets: int = u64()
    tx_bytes: int = u64()
    lifetime: int = u32()
    flags: int = u16()
    rev_nat_index: int = be16()
    ifindex: int = u16()
    tx_flags_seen: int = u8()
    rx_flags_seen: int = u8()
    src_sec_id: int = u32()
    last_tx_report: int = u32()
    last_rx_report: int = u32()


@dataclass(frozen=True, slots=True, kw_only=True)
class NatEntry(Record):
    """Value of ``cilium_snat_v4_external``: what an address and port become."""

    C_NAME: ClassVar[str] = "ipv4_nat_entry"
    created: int = u64()
    needs_ct: int = u64()
    pad1: bytes = padding(16)
    to_addr: IPv4Address = ipv4()
    to_port: int = be16()
    pad2: bytes = padding(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class FragKey(Record):
    """Key of ``cilium_ipv4_frag_datagrams``: one datagram."""

    C_NAME: ClassVar[str] = "frag_key"
    daddr: IPv4Address = ipv4()
    saddr: IPv4Address = ipv4()
    id: int = be16()
    proto: int = u8()
    pad: bytes = padding(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FragPorts(Record):
    """Value of ``cilium_ipv4_frag_datagrams``: the ports its first fragment carried."""

    C_NAME: ClassVar[str] = "frag_ports"
    sport: int = be16()
    dport: int = be16()


@dataclass(frozen=True, slots=True, kw_only=True)
class Address4(Record):
    """Key of ``cilium_nodeport_neigh4``: a client."""

    C_NAME: ClassVar[str] = ""
    ip4: IPv4Address = ipv4()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mac(Record):
    """Value of ``cilium_nodeport_neigh4``."""

    C_NAME: ClassVar[str] = "mac"
    addr: str = mac_address(6)
    pad: bytes = padding(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceKey(Record):
    """Key of ``cilium_lb4_services_v2``; slot 0 is the service, 1.. its backends."""

    C_NAME: ClassVar[str] = "lb4_key"
    address: IPv4Address = ipv4()
    dport: int = be16()
    backend_slot: int = u16()
    proto: int = u8()
    scope: int = u8()
    pad: bytes = padding(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Record):
    """Value of ``cilium_lb4_services_v2``.

    ``backend_id`` holds the affinity timeout in seconds in the master row. ``flags`` and
    ``flags2`` together make a `ServiceFlag`.
    """

    C_NAME: ClassVar[str] = "lb4_service"
    backend_id: int = u32()
    count: int = u16()
    rev_nat_index: int = be16()
    flags: int = u8()
    flags2: int = u8()
    qcount: int = u16()

    @property
    def all_flags(self) -> ServiceFlag:
        """Both flag bytes as one value."""
        return ServiceFlag(self.flags | self.flags2 << 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendKey(Record):
    """Key of ``cilium_lb4_backends``."""

    C_NAME: ClassVar[str] = ""
    id: int = u32()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend(Record):
    """Value of ``cilium_lb4_backends``; ``flags``: 0 active, 1 terminating, 2 quarantined."""

    C_NAME: ClassVar[str] = "lb4_backend"
    address: IPv4Address = ipv4()
    port: int = be16()
    proto: int = u8()
    flags: int = u8()
    cluster_id: int = u16()
    zone: int = u8()
    pad: bytes = padding(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevNatKey(Record):
    """Key of ``cilium_lb4_reverse_nat`` and ``cilium_lb4_maglev``; network order, as in C."""

    C_NAME: ClassVar[str] = ""
    index: int = be16()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseNat(Record):
    """Value of ``cilium_lb4_reverse_nat``: the service's own address."""

    C_NAME: ClassVar[str] = "lb4_reverse_nat"
    address: IPv4Address = ipv4()
    port: int = be16()


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityKey(Record):
    """Key of ``cilium_lb4_affinity``: one client of one service.

    ``client_id`` is the cookie of a network namespace if ``netns_cookie`` says so, else an address.
    """

    C_NAME: ClassVar[str] = "lb4_affinity_key"
    client_id: int = u64()
    rev_nat_id: int = be16()
    netns_cookie: int = u8()
    pad1: bytes = padding(1)
    pad2: bytes = padding(4)

    @property
    def client(self) -> IPv4Address:
        """The client's address, where ``client_id`` is one."""
        # the address lies in network order in the first four of the eight bytes
        return IPv4Address((self.client_id & 0xFFFFFFFF).to_bytes(4, "little"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityValue(Record):
    """Value of ``cilium_lb4_affinity``: its backend."""

    C_NAME: ClassVar[str] = "lb_affinity_value"
    last_used: int = u64()
    backend_id: int = u32()
    pad: bytes = padding(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityMatch(Record):
    """Key of ``cilium_lb_affinity_match``: backends that a service still has."""

    C_NAME: ClassVar[str] = "lb_affinity_match"
    backend_id: int = u32()
    rev_nat_id: int = be16()
    pad: bytes = padding(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRangeKey(Record):
    """Key of ``cilium_lb4_source_range``: clients a service lets in; 32 bits before the address."""

    C_NAME: ClassVar[str] = "lb4_src_range_key"
    # rev_nat_id and its padding count as 32 bits of prefix: services do not share ranges
    prefixlen: int = u32(_RANGE_STATIC + 32)
    rev_nat_id: int = be16()
    pad: bytes = padding(2)
    addr: IPv4Address = ipv4()

    @classmethod
    def of(cls, number: int, network: IPv4Network) -> SourceRangeKey:
        """Return the key that lets a network in to the service with this number."""
        prefix = _RANGE_STATIC + network.prefixlen
        return cls(prefixlen=prefix, rev_nat_id=number, addr=network.network_address)

    @property
    def network(self) -> IPv4Network:
        """The clients it is about."""
        return IPv4Network((self.addr, self.prefixlen - _RANGE_STATIC))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseSkKey(Record):
    """Key of ``cilium_lb4_reverse_sk``: a socket and the backend it was sent to."""

    C_NAME: ClassVar[str] = "lb4_reverse_sk_key"
    cookie: int = u64()
    address: IPv4Address = ipv4()
    port: int = be16()
    pad: bytes = padding(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseSk(Record):
    """Value of ``cilium_lb4_reverse_sk``: the service the socket asked for."""

    C_NAME: ClassVar[str] = "lb4_reverse_sk"
    address: IPv4Address = ipv4()
    port: int = be16()
    rev_nat_index: int = be16()
