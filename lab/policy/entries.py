"""Entries of an endpoint's policy map: layout, ports as blocks, and the look-up done on them.

The map ``cilium_policy_NNNNN`` is a hash. Its key holds identity, direction, protocol and either
one port or a block of 2, 4, 8 ... ports that begins at a multiple of its size, so that a range of
ports costs at most 30 entries. A look-up asks for one key of each class of entries that the map
has, the most specific first; ``cilium_policy_absent`` says which classes it has none of.
Source: Cilium ``bpf/lib/policy.h`` (``policy_key``, ``policy_entry``), but for the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from lab.errors import InputError
from lab.layouts.core import (
    POLICY_EGRESS,
    POLICY_PORT_ZERO,
    POLICY_WILD_SHIFT,
    PolicyAbsent,
    PolicyEntry,
    PolicyKey,
)
from lab.policy.objects import Direction

MAP_CAPACITY = 16384
"""Entries per endpoint; a policy that needs more is refused before anything is written."""

ABSENT = "cilium_policy_absent"
"""Map that says for each endpoint id what its policy map has nothing of."""

CLASS_ALL = 17
"""Class of the entries for all protocols; of others it is the number of low bits of the port that
may be anything: 0 one port, 1 to 15 a block of ports, 16 all ports of a protocol."""

_ANYBODY_AT, _UNSELECTED = 32, 1 << 63
_NO_CLASS = ((1 << CLASS_ALL + 1) - 1) * (1 | 1 << _ANYBODY_AT)

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
    def compared_bits(self) -> int:
        """How many bits of protocol and port are compared: 0, 8, or up to 24."""
        return 8 + self.port_bits if self.protocol else 0

    @property
    def class_number(self) -> int:
        """Which class of entries this is one of, see `CLASS_ALL`."""
        return 16 - self.port_bits if self.protocol else CLASS_ALL

    def pack(self) -> bytes:
        """Return the 8 bytes of ``struct policy_key``."""
        wild = POLICY_EGRESS if self.egress else 0
        if self.port_bits == 16:
            wild |= 0 if self.port else POLICY_PORT_ZERO
        elif self.port_bits:
            wild |= 16 - self.port_bits << POLICY_WILD_SHIFT
        return _KEY.pack(self.identity, self.port.to_bytes(2, "big"), self.protocol, wild)

    @classmethod
    def unpack(cls, raw: bytes) -> EntryKey:
        """Read the 8 bytes of ``struct policy_key``."""
        key = PolicyKey.unpack(raw)
        bits = 16 - key.wild_bits if key.protocol else 0
        return cls(key.sec_label, key.egress, key.protocol, key.dport, bits)

    def parents(self) -> list[EntryKey]:
        """Return the wider entries that contain this one, the key itself first."""
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


def absent(entries: Mapping[EntryKey, bool]) -> PolicyAbsent:
    """Return what there is nothing of among these entries.

    Args:
        entries: key -> deny flag. Those of a direction that allow everything and say nothing else
            are what is written where no policy selects the endpoint.
    """
    left = {False: _NO_CLASS, True: _NO_CLASS}
    only = {False: 0, True: 0}
    for key in entries:
        left[key.egress] &= ~(1 << key.class_number + (0 if key.identity else _ANYBODY_AT))
        only[key.egress] += 1
    for egress, count in only.items():
        if count == 1 and entries.get(EntryKey(0, egress)) is False:
            left[egress] |= _UNSELECTED
    return PolicyAbsent(egress=left[True], ingress=left[False])


def pack_value(deny: bool, key: EntryKey) -> bytes:
    """Return the 24 bytes of ``struct policy_entry`` with counters at zero.

    Args:
        deny: whether a match drops the packet with reason 181.
        key: how much of protocol and port it compares is kept in the value, as Cilium does.
    """
    return _value(int(deny) | key.compared_bits << 3)


@cache
def _value(flags: int) -> bytes:
    return PolicyEntry(flags=flags).pack()


def unpack_value(raw: bytes) -> tuple[bool, int, int]:
    """Read ``struct policy_entry``: deny flag, packets, bytes."""
    _, flags, _, _, packets, size = _VALUE.unpack(raw)
    return bool(flags & 1), packets, size


def port_prefixes(first: int, last: int) -> list[tuple[int, int]]:
    """Split a range of ports into blocks ``(port, bits)``, the fewest that cover exactly it.

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
            if found is None or key.compared_bits > found.compared_bits:
                found = key
            # the most specific entry answers: wider ones of this label are never asked for
            break
    return Match(found, 0 if found else POLICY_DENIED)
