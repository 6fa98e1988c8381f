"""Reading captured bytes: the headers from the outside in, and what identifies a packet."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from lab.names import VXLAN_PORT
from lab.observe.records import Link, Record

ETHERNET_BYTES = 14
_IPV4, _ARP = 0x0800, 0x0806
_IP = struct.Struct("!BBHHHBBH4s4s")
ICMP, TCP, UDP, ESP = 1, 6, 17, 50
PROTOCOLS = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ESP: "esp", 2: "igmp"}
# net_protocol.no_policy: ip_protocol_deliver_rcu() leaves IPsec's check to them
CHECK_LATER = frozenset({ICMP, TCP, UDP})
_FLAGS = ((2, "SYN"), (16, "ACK"), (8, "PSH"), (1, "FIN"), (4, "RST"))
_ICMP_NAMES = {
    0: "echo reply", 3: "destination unreachable", 5: "redirect", 8: "echo request",
    11: "time exceeded", 12: "parameter problem",
}  # fmt: skip
PAYLOAD_BYTES = 48
_OFFSET = 0x1FFF
_ICMP_CODES = {
    (3, 0): "network unreachable", (3, 1): "host unreachable", (3, 2): "protocol unreachable",
    (3, 3): "port unreachable", (3, 4): "fragmentation needed", (3, 9): "network prohibited",
    (3, 10): "host prohibited", (3, 13): "administratively prohibited",
    (11, 0): "time to live exceeded", (11, 1): "fragment reassembly time exceeded",
}  # fmt: skip
_ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})


@dataclass(frozen=True, slots=True)
class Packet:
    """One IPv4 packet (or ARP message), as far as its bytes were captured.

    Attributes:
        protocol: number; 0 for ARP.
        ident: IP identification.
        ports: source and destination; for ICMP type * 256 + code and the identifier.
        serial: what tells packets of one flow apart: TCP sequence, acknowledgement and flags;
            ICMP sequence number.
        vni: network identifier of the VXLAN header it came out of, None without one.
        quoted: the packet that an ICMP error quotes.
        total: length that its IP header states, bytes.
        size: bytes of TCP or UDP payload in it; 0 for others.
        payload: of UDP and ICMP, as far as captured, at most ``PAYLOAD_BYTES``.
    """

    protocol: int
    source: IPv4Address
    destination: IPv4Address
    ident: int
    ports: tuple[int, int]
    serial: tuple[int, ...] = ()
    vni: int | None = None
    quoted: Packet | None = None
    total: int = 0
    size: int = 0
    payload: bytes = b""

    @property
    def flow(self) -> tuple[object, ...]:
        """Protocol, addresses and ports."""
        return self.protocol, self.source, self.destination, self.ports

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What no other packet of the lab has within a fraction of a second."""
        return (
            self.protocol, self.source, self.destination, self.ident, self.ports, self.serial,
            self.total,
        )  # fmt: skip

    @property
    def secret(self) -> tuple[object, ...]:
        """What an encrypted packet is known by (`secret_of`); of use for ESP alone."""
        return self.destination, *self.serial

    @property
    def info(self) -> str:
        """What tells it apart, in words: TCP flags, ICMP type; empty for others."""
        if self.protocol == TCP and self.serial:
            flags = [word for bit, word in _FLAGS if self.serial[2] & bit]
            return ",".join(flags)
        if self.protocol == ICMP:
            kind, code = divmod(self.ports[0], 256)
            return _ICMP_NAMES.get(kind, f"type {kind} code {code}")
        return ""

    @property
    def wraps(self) -> bool:
        """Whether it is the outside of a tunnel: a datagram to the port of VXLAN."""
        return self.protocol == UDP and self.ports[1] == VXLAN_PORT

    @property
    def name(self) -> str:
        """``udp``, ``tcp``, ``icmp``, ``arp`` ... or ``ip-NUMBER``."""
        return "arp" if not self.protocol else PROTOCOLS.get(self.protocol, f"ip-{self.protocol}")


def icmp_words(kind: int, code: int) -> str:
    """Return an ICMP message in words and numbers: ``port unreachable (type 3 code 3)``."""
    words = _ICMP_CODES.get((kind, code)) or _ICMP_NAMES.get(kind, "")
    return f"{words} (type {kind} code {code})".strip()


def network_bytes(record: Record) -> bytes:
    """Return the captured bytes from the network header on; empty for a frame of another kind."""
    return network_bytes_of(record.packet) if record.link is Link.ETHERNET else record.packet


def network_bytes_of(frame: bytes) -> bytes:
    """Return an Ethernet frame from the network header on; empty for one of another kind."""
    if len(frame) < ETHERNET_BYTES:
        return b""
    (kind,) = struct.unpack_from("!H", frame, 12)
    return frame[ETHERNET_BYTES:] if kind in (_IPV4, _ARP) else b""


def from_wire(value: int) -> int:
    """Return a 32-bit number in network order, as a probe copied it, as a number."""
    return int.from_bytes(value.to_bytes(4, "little"), "big")


def secret_of(record: Record) -> tuple[IPv4Address, int, int]:
    """Return what a packet will be known by once encrypted: destination, SPI, sequence number.

    Args:
        record: of ``Kind.XFRM_ENCRYPT``.
    """
    destination = IPv4Address((record.arg & 0xFFFFFFFF).to_bytes(4, "little"))
    return destination, from_wire(record.state), from_wire(record.hash)


def innermost(record: Record) -> Packet | None:
    """Return the packet that a record is about, looking through VXLAN; None if unreadable."""
    return parse(network_bytes(record))


def outermost(record: Record) -> Packet | None:
    """Return the outer packet of a record, None if unreadable."""
    return parse(network_bytes(record), through=False)


def parse(data: bytes, *, through: bool = True, vni: int | None = None) -> Packet | None:
    """Parse an IPv4 packet or ARP message from its first byte.

    Args:
        data: may be cut short.
        through: follow VXLAN to the packet inside.
        vni: of the VXLAN header in front of it.
    """
    # ARP for IPv4 over Ethernet begins with these two types (RFC 826)
    if data[:4] == b"\0\1\x08\0" and len(data) >= 28:
        source, destination = IPv4Address(data[14:18]), IPv4Address(data[24:28])
        return Packet(0, source, destination, 0, (data[7], 0), vni=vni)
    if len(data) < _IP.size or data[0] >> 4 != 4:
        return None
    first, _, total, ident, fragment, _, protocol, _, source, destination = _IP.unpack_from(data)
    header = (first & 15) * 4
    body = data[header:]
    ports, serial, quoted = _transport(protocol, body)
    if fragment & _OFFSET:
        # what is behind the header of a later fragment are no ports
        ports, serial, quoted = (0, 0), (fragment & _OFFSET,), None
    if through and protocol == UDP and ports[1] == VXLAN_PORT and len(body) >= 16:
        inner_vni = int.from_bytes(body[12:15], "big")
        # behind 8 bytes of UDP and 8 of VXLAN
        inside = parse(body[16 + ETHERNET_BYTES :], vni=inner_vni)
        if inside is not None:
            return inside
    return Packet(
        protocol,
        IPv4Address(source),
        IPv4Address(destination),
        ident,
        ports,
        serial,
        vni,
        quoted,
        total,
        _size(protocol, total - header, body),
        body[8 : 8 + PAYLOAD_BYTES] if protocol in (UDP, ICMP) else b"",
    )


def _size(protocol: int, length: int, body: bytes) -> int:
    """Bytes of payload, given those behind the IP header; 0 for a fragment of a datagram."""
    if protocol == UDP and len(body) >= 8:
        (stated,) = struct.unpack_from("!H", body, 4)
        return stated - 8 if stated == length else 0
    if protocol == TCP and len(body) > 12:
        return max(length - (body[12] >> 4) * 4, 0)
    return 0


def _transport(
    protocol: int, body: bytes
) -> tuple[tuple[int, int], tuple[int, ...], Packet | None]:
    if protocol == ICMP and len(body) >= 8:
        kind, code, _, ident, sequence = struct.unpack_from("!BBHHH", body)
        quoted = parse(body[8:], through=False) if kind in _ICMP_ERRORS else None
        # an error has no identifier: there are four unused bytes, or a hint such as the MTU
        return (kind << 8 | code, 0 if quoted else ident), (sequence,), quoted
    if protocol == TCP and len(body) >= 14:
        source, destination, sequence, acknowledged, _, flags = struct.unpack_from("!HHIIBB", body)
        return (source, destination), (sequence, acknowledged, flags), None
    if protocol == ESP and len(body) >= 8:
        return (0, 0), struct.unpack_from("!II", body), None
    if protocol in (TCP, UDP) and len(body) >= 4:
        source, destination = struct.unpack_from("!HH", body)
        return (source, destination), (), None
    return (0, 0), (), None
