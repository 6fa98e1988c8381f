"""The bytes of a packet read as headers, outermost first, and what changed between two of them.

A reader of its own, without scapy: a page about one trace decodes a hundred packets, and the
first ten of them should not wait a second for an import.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lab.names import VXLAN_PORT

# IANA's port, and Linux's default from before there was one, which Cilium uses
VXLAN_PORTS = frozenset({4789, VXLAN_PORT})
_PROTOCOLS = {1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 50: "esp", 58: "icmpv6"}
_FLAGS = ((0x10, "ack"), (0x02, "syn"), (0x01, "fin"), (0x04, "rst"), (0x08, "psh"), (0x20, "urg"))


@dataclass(frozen=True, slots=True)
class Layer:
    """One header, or the payload.

    Attributes:
        name: ``ethernet arp ipv4 ipv6 udp tcp icmp vxlan esp payload``.
        fields: (name, value in words), in the order of the bytes.
        start, end: byte range of the header within the packet.
    """

    name: str
    fields: tuple[tuple[str, str], ...]
    start: int
    end: int

    def get(self, name: str) -> str:
        """Return the value of a field, empty if the header has none of that name."""
        return next((value for key, value in self.fields if key == name), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """The outer headers of an encapsulated packet.

    Attributes:
        source, destination: outer addresses.
        vni: 24 bits; the datapath puts the sender's security identity there.
        overhead: bytes before the inner frame.
        inner: bytes of the inner frame that were captured.
    """

    source: str
    destination: str
    source_port: str
    destination_port: str
    vni: int
    overhead: int
    inner: int

    def __str__(self) -> str:
        return (
            f"outer udp {self.source}:{self.source_port} -> "
            f"{self.destination}:{self.destination_port}, VXLAN VNI {self.vni}"
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One layer of the packet as it leaves a hop, beside what it was on arrival.

    Attributes:
        layer: after the hop (before it, if the hop removed it).
        kind: ``same``, ``changed``, ``added`` or ``removed``.
        fields: names of the fields whose value differs.
    """

    layer: Layer
    kind: str
    fields: frozenset[str] = frozenset()


def layers(data: bytes, link_layer: str = "ethernet") -> tuple[Layer, ...]:
    """Return the headers of a packet; a cut header becomes the payload, nothing is guessed."""
    found: list[Layer] = []
    kind, at = link_layer, 0
    if kind == "ip":
        kind = "ipv6" if data[:1] and data[0] >> 4 == 6 else "ipv4"
    while kind in _READERS:
        try:
            layer, kind = _READERS[kind](data, at)
        except (struct.error, IndexError):
            break
        found.append(layer)
        at = layer.end
    if at < len(data):
        found.append(_payload(data, at))
    return tuple(found)


def tunnel(data: bytes, link_layer: str = "ethernet") -> Tunnel | None:
    """Return the outer headers of a VXLAN packet, None for any other."""
    found = layers(data, link_layer)
    names = [layer.name for layer in found]
    if "vxlan" not in names:
        return None
    at = names.index("vxlan")
    # VXLAN is always in UDP, and that in IP
    outer, ports = found[at - 2], found[at - 1]
    return Tunnel(
        source=outer.get("source"),
        destination=outer.get("destination"),
        source_port=ports.get("source port"),
        destination_port=ports.get("destination port"),
        vni=int(found[at].get("vni")),
        overhead=found[at].end,
        inner=len(data) - found[at].end,
    )


def changes(before: tuple[Layer, ...], after: tuple[Layer, ...]) -> tuple[Change, ...]:
    """Return what a hop did to the headers.

    Layers are matched from the payload outwards, because encapsulation only adds in front.
    """
    common = 0
    for one, other in zip(reversed(before), reversed(after), strict=False):
        if one.name != other.name:
            break
        common += 1
    removed = [Change(layer, "removed") for layer in before[: len(before) - common]]
    added = [Change(layer, "added") for layer in after[: len(after) - common]]
    pairs = zip(before[len(before) - common :], after[len(after) - common :], strict=True)
    return (*removed, *added, *(_compare(one, other) for one, other in pairs))


def _compare(before: Layer, after: Layer) -> Change:
    old = dict(before.fields)
    different = frozenset(name for name, value in after.fields if old.get(name) != value)
    return Change(after, "changed" if different else "same", different)


def _mac(data: bytes) -> str:
    return ":".join(f"{octet:02x}" for octet in data)


def _ethernet(data: bytes, at: int) -> tuple[Layer, str]:
    destination, source, kind = struct.unpack_from("!6s6sH", data, at)
    inner = {0x0800: "ipv4", 0x0806: "arp", 0x86DD: "ipv6"}.get(kind, "")
    fields = (("destination", _mac(destination)), ("source", _mac(source)))
    layer = Layer("ethernet", (*fields, ("type", inner or f"0x{kind:04x}")), at, at + 14)
    return layer, inner


def _arp(data: bytes, at: int) -> tuple[Layer, str]:
    operation, hw, ip, target_hw, target = struct.unpack_from("!6xH6s4s6s4s", data, at)
    fields = (
        ("operation", {1: "request", 2: "reply"}.get(operation, str(operation))),
        ("sender", f"{IPv4Address(ip)} is {_mac(hw)}"),
        ("target", f"{IPv4Address(target)} is {_mac(target_hw)}"),
    )
    return Layer("arp", fields, at, at + 28), ""


def _ipv4(data: bytes, at: int) -> tuple[Layer, str]:
    first, tos, length, ident, frag, ttl, proto, checksum, source, destination = struct.unpack_from(
        "!BBHHHBBH4s4s", data, at
    )
    name = _PROTOCOLS.get(proto, str(proto))
    flags = "".join((" DF" if frag & 0x4000 else "", " MF" if frag & 0x2000 else ""))
    fields = (
        ("source", str(IPv4Address(source))),
        ("destination", str(IPv4Address(destination))),
        ("protocol", name),
        ("ttl", str(ttl)),
        ("length", str(length)),
        ("id", f"0x{ident:04x}{flags}"),
        ("tos", f"0x{tos:02x}"),
        ("checksum", f"0x{checksum:04x}"),
    )
    end = at + (first & 0x0F) * 4
    if end > len(data) or end < at + 20:
        raise struct.error("cut header")
    # Only the first fragment has a transport header behind it.
    return Layer("ipv4", fields, at, end), "" if frag & 0x1FFF else name


def _ipv6(data: bytes, at: int) -> tuple[Layer, str]:
    length, proto, hops, source, destination = struct.unpack_from("!4xHBB16s16s", data, at)
    name = _PROTOCOLS.get(proto, str(proto))
    fields = (
        ("source", str(IPv6Address(source))),
        ("destination", str(IPv6Address(destination))),
        ("protocol", name),
        ("hop limit", str(hops)),
        ("length", str(length)),
    )
    return Layer("ipv6", fields, at, at + 40), name


def _udp(data: bytes, at: int) -> tuple[Layer, str]:
    source, destination, length, checksum = struct.unpack_from("!HHHH", data, at)
    fields = (
        ("source port", str(source)),
        ("destination port", str(destination)),
        ("length", str(length)),
        ("checksum", f"0x{checksum:04x}"),
    )
    return Layer("udp", fields, at, at + 8), "vxlan" if destination in VXLAN_PORTS else ""


def _vxlan(data: bytes, at: int) -> tuple[Layer, str]:
    flags, vni = struct.unpack_from("!B3xI", data, at)
    # 24 bits and a reserved byte (RFC 7348)
    fields = (("vni", str(vni >> 8)), ("flags", f"0x{flags:02x}"))
    return Layer("vxlan", fields, at, at + 8), "ethernet"


def _tcp(data: bytes, at: int) -> tuple[Layer, str]:
    source, destination, sequence, ack, offset, bits, window, checksum = struct.unpack_from(
        "!HHIIBBHH", data, at
    )
    fields = (
        ("source port", str(source)),
        ("destination port", str(destination)),
        ("flags", " ".join(word for bit, word in _FLAGS if bits & bit)),
        ("sequence", str(sequence)),
        ("acknowledgement", str(ack)),
        ("window", str(window)),
        ("checksum", f"0x{checksum:04x}"),
    )
    end = at + (offset >> 4) * 4
    # options may have been cut off
    return Layer("tcp", fields, at, min(max(end, at + 20), len(data))), ""


def _icmp(data: bytes, at: int) -> tuple[Layer, str]:
    kind, code, checksum, ident, sequence = struct.unpack_from("!BBHHH", data, at)
    words = {
        0: "echo reply",
        3: "unreachable",
        5: "redirect",
        8: "echo request",
        11: "ttl exceeded",
    }
    fields = (
        ("type", f"{kind} {words.get(kind, '')}".strip()),
        ("code", str(code)),
        ("identifier", str(ident)),
        ("sequence", str(sequence)),
        ("checksum", f"0x{checksum:04x}"),
    )
    return Layer("icmp", fields, at, at + 8), ""


def _payload(data: bytes, at: int) -> Layer:
    rest = data[at:]
    text = "".join(chr(octet) if 32 <= octet < 127 else "." for octet in rest[:32])
    fields = (("bytes", str(len(rest))), ("text", text + ("…" if len(rest) > 32 else "")))
    return Layer("payload", fields, at, len(data))


def _esp(data: bytes, at: int) -> tuple[Layer, str]:
    spi, sequence = struct.unpack_from("!II", data, at)
    fields = (("spi", f"0x{spi:08x}"), ("sequence", str(sequence)))
    return Layer("esp", fields, at, at + 8), ""


_READERS = {
    "ethernet": _ethernet,
    "arp": _arp,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "udp": _udp,
    "tcp": _tcp,
    "icmp": _icmp,
    "vxlan": _vxlan,
    "esp": _esp,
}
