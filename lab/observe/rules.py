"""A namespace's rules by the numbers that nftables' trace uses (``nft -a list ruleset``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.names import VXLAN_PORT

OWN_TABLE = "lab_trace"
"""Prefix of the tables that ask the kernel to trace: never part of a story."""

_TABLE = re.compile(r"table (\w+) (\S+) {")
_CHAIN = re.compile(r"\s+chain (\S+) {")
_BASE = re.compile(r"\s+type \w+ hook (\w+)(?: devices? = .*?| device \S+)? priority ([^;]+);"
                   r"(?: policy (\w+);)?")  # fmt: skip
_DEVICES = re.compile(r'"([^"]+)"')
_RULE = re.compile(r"\s+(.*\S) # handle (\d+)$")

Chain = tuple[str, str, str]
"""(family, table, chain)."""


@dataclass(frozen=True, slots=True)
class Base:
    """Where a base chain is called.

    Attributes:
        hook: ``prerouting input forward output postrouting ingress egress``.
        priority: as nft prints it.
        policy: ``accept`` or ``drop``.
        devices: of the netdev family, else empty.
    """

    hook: str
    priority: str
    policy: str
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Chains and rules of one namespace.

    Attributes:
        bases: the base chains; other chains are jumped to.
        rules: (family, table, chain) and handle -> the rule as text, without its counters.
    """

    bases: Mapping[Chain, Base] = field(default_factory=dict)
    rules: Mapping[tuple[Chain, int], str] = field(default_factory=dict)

    def __or__(self, later: Ruleset) -> Ruleset:
        """Return both: what was there at one moment or the other."""
        return Ruleset({**self.bases, **later.bases}, {**self.rules, **later.rules})


_COUNTED = re.compile(r"counter packets \d+ bytes \d+")


def parse_ruleset(text: str) -> Ruleset:
    """Return what ``nft -a list ruleset`` printed."""
    bases: dict[Chain, Base] = {}
    rules: dict[tuple[Chain, int], str] = {}
    family = table = chain = ""
    for line in text.splitlines():
        if (found := _TABLE.match(line)) is not None:
            family, table = found.groups()
            chain = ""
        elif (found := _CHAIN.match(line)) is not None:
            chain = found[1]
        elif line.strip() == "}":
            chain = ""
        elif chain and (found := _BASE.match(line)) is not None:
            devices = tuple(_DEVICES.findall(line))
            bases[family, table, chain] = Base(found[1], found[2], found[3] or "accept", devices)
        elif chain and (found := _RULE.match(line)) is not None:
            text = _COUNTED.sub("counter", found[1])
            rules[(family, table, chain), int(found[2])] = text
    return Ruleset(bases, rules)


def tracing_rules(port: int, protocol: int, devices: tuple[str, ...] = ()) -> str:
    """Return the commands that make the kernel trace IPv4 packets in this namespace.

    They stand in tables that belong to the process that gives them and go with it.

    Args:
        port: one end of the flow, as source or destination, also inside VXLAN; 0 for any.
        protocol: of the flow, 0 for any; answers by ICMP are always traced.
        devices: that have chains of the netdev family.
    """
    matches = [f"{match} meta nftrace set 1" for match in _matches(port, protocol)]
    body = "; ".join(matches)
    # in front of every chain, conntrack's defragmentation (-400) too: all of them are traced
    # every packet of a namespace passes one of the two before all other hooks of IP
    hooks = "".join(
        f" chain {hook} {{ type filter hook {hook} priority -100000; {body}; }};"
        for hook in ("prerouting", "output")
    )
    lines = [f"add table ip {OWN_TABLE} {{ flags owner;{hooks} }}"]
    if devices:
        # numbered: a device may be called what no chain may
        chains = "".join(
            f' chain c{n} {{ type filter hook ingress device "{device}" priority -100000;'
            f" {body}; }};"
            for n, device in enumerate(devices)
        )
        lines.append(f"add table netdev {OWN_TABLE} {{ flags owner;{chains} }}")
    return "\n".join(lines) + "\n"


_ICMP, _UDP = 1, 17
_TUNNEL = f"udp dport {VXLAN_PORT}"
_INNER_SPORT, _INNER_DPORT = "@th,400,16", "@th,416,16"
"""Ports behind 8 bytes of UDP, 8 of VXLAN, 14 of Ethernet and 20 of IPv4, in bits."""


def _matches(port: int, protocol: int) -> list[str]:
    if port:
        return [
            f"meta l4proto {{ tcp, udp }} th sport {port}",
            f"meta l4proto {{ tcp, udp }} th dport {port}",
            f"{_TUNNEL} {_INNER_SPORT} {port}",
            f"{_TUNNEL} {_INNER_DPORT} {port}",
            f"meta l4proto {_ICMP}",
        ]
    if protocol:
        numbers = ", ".join(map(str, sorted({protocol, _ICMP})))
        return [f"meta l4proto {{ {numbers} }}", _TUNNEL]
    # true of every packet: 255 is reserved and never sent
    return ["meta l4proto != 255"]
