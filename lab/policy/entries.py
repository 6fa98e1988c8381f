"""Entries of an endpoint's policy map: layout, ports as prefixes, and the look-up done on them.

The map ``cilium_policy_NNNNN`` is an LPM trie whose key holds identity and direction in full,
then protocol and destination port as a prefix, so that a range of ports costs at most 30 entries.
Source: Cilium ``bpf/lib/policy.h`` (``policy_key``, ``policy_entry``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from lab.errors import InputError
from lab.layouts.core import PolicyEntry, PolicyKey
from lab.policy.objects import Direction

MAP_CAPACITY = 16384
"""Entries per endpoint; a policy that needs more is refused before anything is written."""

STATIC_BITS = 40
"""Identity (32) and direction byte (8): the part of a key that is always compared in full."""

UNSELECTED = "cilium_unselected"
"""Map that says for each endpoint id in which directions no policy selects it."""

POLICY_DENIED = 133
POLICY_DENIED_BY_DENYLIST = 181

# a map holds up to 16384 of these, and a change of labels compares them all: without the codecs
# themselves, most of the time would go into making records
_KEY, _VALUE = PolicyKey.codec(), PolicyEntry.codec()


@dataclass(frozen=True, slots=True, order=True)
class EntryKey:
    """Key of one policy-map entry.

    Attributes:
        identity: of the remote side; 0 stands for all of them.
        egress: direction as a bit.
        protocol: IANA number, 0 for all.
        port: destination port (ICMP: the type); bits beyond ``port_bits`` are zero.
        port_bits: how many leading bits of ``port`` are compared, 0 to 16.
    """

    identity: int
    egress: bool
    protocol: int = 0
    port: int = 0
    port_bits: int = 0

    @property
    def prefix_length(self) -> int:
        """Length of the LPM prefix in bits: 40, 48, or up to 64."""
        return STATIC_BITS + (8 + self.port_bits if self.protocol else 0)

    def pack(self) -> bytes:
        """Return the 12 bytes of ``struct policy_key``."""
        port = self.port.to_bytes(2, "big")
        return _KEY.pack(self.prefix_length, self.identity, self.egress, self.protocol, port)

    @classmethod
    def unpack(cls, raw: bytes) -> EntryKey:
        """Read the 12 bytes of ``struct policy_key``."""
        prefix, identity, egress, protocol, port = _KEY.unpack(raw)
        bits = max(prefix - STATIC_BITS - 8, 0)
        return cls(identity, bool(egress & 1), protocol, int.from_bytes(port, "big"), bits)

    def parents(self) -> list[EntryKey]:
        """Return the shorter prefixes that contain this one, the key itself first."""
        found = [self]
        for bits in range(self.port_bits - 1, -1, -1):
            port = self.port & (0xFFFF << 16 - bits) & 0xFFFF
            found.append(EntryKey(self.identity, self.egress, self.protocol, port, bits))
        if self.protocol:
            found.append(EntryKey(self.identity, self.egress))
        return found

    def __str__(self) -> str:
        direction = "Egress" if self.egress else "Ingress"
        ports = ""
        if self.protocol:
            name = {1: "ICMP", 6: "TCP", 17: "UDP", 132: "SCTP"}.get(
                self.protocol, str(self.protocol)
            )
            last = self.port + (1 << 16 - self.port_bits) - 1
            span = f"{self.port}" if last == self.port else f"{self.port}-{last}"
            ports = f" {span if self.port_bits else 'ANY'}/{name}"
        return f"{direction} {self.identity}{ports or ' ANY'}"


def unselected(entries: Mapping[EntryKey, bool]) -> int:
    """Return the directions in which these entries allow everything and say nothing else.

    Args:
        entries: key -> deny flag.

    Returns:
        The bits of ``cilium_unselected``: 1 what the endpoint sends, 2 what it receives.
    """
    found = 0
    for egress, bit in ((True, 1), (False, 2)):
        mine = [(key, deny) for key, deny in entries.items() if key.egress is egress]
        found |= bit if mine == [(EntryKey(0, egress), False)] else 0
    return found


def pack_value(deny: bool, key: EntryKey) -> bytes:
    """Return the 24 bytes of ``struct policy_entry`` with counters at zero.

    Args:
        deny: whether a match drops the packet with reason 181.
        key: its length beyond the static part is kept in the value, as Cilium does.
    """
    return _value(int(deny) | (key.prefix_length - STATIC_BITS) << 3)


@cache
def _value(flags: int) -> bytes:
    return PolicyEntry(flags=flags).pack()


def unpack_value(raw: bytes) -> tuple[bool, int, int]:
    """Read ``struct policy_entry``: deny flag, packets, bytes."""
    _, flags, _, _, packets, size = _VALUE.unpack(raw)
    return bool(flags & 1), packets, size


def port_prefixes(first: int, last: int) -> list[tuple[int, int]]:
    """Split a range of ports into prefixes ``(port, bits)``, the fewest that cover exactly it.

    Raises:
        InputError: the range is empty or outside 0 to 65535.
    """
    if not 0 <= first <= last <= 0xFFFF:
        raise InputError(
            f"ports {first}-{last} are no range", hint="use 0 <= port <= endPort <= 65535"
        )
    found = []
    while first <= last:
        # the largest block that can begin at this port is as long as its lowest bit says
        size = first & -first or 1 << 16
        while first + size - 1 > last:
            size >>= 1
        found.append((first, 17 - size.bit_length()))
        first += size
    return found


@dataclass(frozen=True, slots=True)
class Match:
    """What the map says about one packet.

    Attributes:
        key: the deciding entry; ``None`` if none matched.
        reason: 0 allowed, 133 nothing matched, 181 a deny entry matched.
    """

    key: EntryKey | None
    reason: int


def look_up(
    entries: Mapping[EntryKey, bool],
    *,
    identity: int,
    direction: Direction,
    protocol: int,
    port: int,
) -> Match:
    """Decide as ``__policy_can_access`` does: {identity}, then {0}; deny in either wins.

    Args:
        entries: key -> deny flag.
        identity: of the remote side.
        direction: seen from the endpoint that owns the map.
        protocol: IANA number.
        port: destination port, or the ICMP type.
    """
    egress = direction is Direction.EGRESS
    found: EntryKey | None = None
    for label in (identity, 0):
        for key in EntryKey(label, egress, protocol, port, 16).parents():
            deny = entries.get(key)
            if deny is None:
                continue
            if deny:
                return Match(key, POLICY_DENIED_BY_DENYLIST)
            if found is None or key.prefix_length > found.prefix_length:
                found = key
            # the trie returns the longest match only: shorter prefixes of this label are never seen
            break
    return Match(found, 0 if found else POLICY_DENIED)
