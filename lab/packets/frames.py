"""Named frames, built with scapy (imported here and nowhere else: it takes a second)."""

from __future__ import annotations

import logging
from typing import Any

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.l2 import ARP, Ether  # noqa: E402
from scapy.layers.vxlan import VXLAN  # noqa: E402
from scapy.packet import Raw  # noqa: E402

BROADCAST = "ff:ff:ff:ff:ff:ff"


def arp_request(source_mac: str, source: str, target: str) -> bytes:
    """Return an ARP request (RFC 826) as broadcast frame: who has ``target``?"""
    ether = Ether(src=source_mac, dst=BROADCAST)
    return bytes(ether / ARP(op=1, hwsrc=source_mac, psrc=source, pdst=target))


def udp(
    macs: tuple[str, str],
    addresses: tuple[str, str],
    ports: tuple[int, int],
    payload: bytes,
    **ip: Any,
) -> bytes:
    """Return a UDP frame; each pair is (source, destination), ``ip`` sets further IP fields."""
    return bytes(_ip(macs, addresses, ip) / UDP(sport=ports[0], dport=ports[1]) / Raw(payload))


def tcp(
    macs: tuple[str, str],
    addresses: tuple[str, str],
    ports: tuple[int, int],
    flags: str = "S",
    payload: bytes = b"",
    **ip: Any,
) -> bytes:
    """Return a TCP frame with the given flags, for example ``S`` or ``PA``."""
    segment = TCP(sport=ports[0], dport=ports[1], flags=flags, seq=1000)
    packet = _ip(macs, addresses, ip) / segment
    return bytes(packet / Raw(payload) if payload else packet)


def icmp_echo(
    macs: tuple[str, str], addresses: tuple[str, str], identifier: int, payload: bytes, **ip: Any
) -> bytes:
    """Return an ICMP echo request with the given identifier."""
    return bytes(_ip(macs, addresses, ip) / ICMP(type=8, id=identifier, seq=1) / Raw(payload))


def vxlan_payload(frame: bytes, vni: int) -> bytes:
    """Return a frame behind a VXLAN header (RFC 7348), as the payload of a datagram."""
    return bytes(VXLAN(flags=0x08, vni=vni)) + frame


def with_macs(frame: bytes, macs: tuple[str, str]) -> bytes:
    """Return a frame with other (source, destination) MAC addresses."""
    source, destination = (bytes.fromhex(mac.replace(":", "")) for mac in macs)
    return destination + source + frame[12:]


def _ip(macs: tuple[str, str], addresses: tuple[str, str], fields: dict[str, Any]) -> Any:
    ether = Ether(src=macs[0], dst=macs[1])
    return ether / IP(src=addresses[0], dst=addresses[1], **fields)


def summary(frame: bytes) -> str:
    """Return one line that says what a frame is, outer headers first."""
    return str(Ether(frame).summary())


def arp_answer(frame: bytes) -> tuple[str, str] | None:
    """Return (MAC, address) that an ARP reply tells, or None if the frame is no ARP reply."""
    packet = Ether(frame)
    if ARP not in packet or packet[ARP].op != 2:
        return None
    return packet[ARP].hwsrc, packet[ARP].psrc
