"""Which IPsec policy a packet meets: those of a namespace, in the order in which they are tried."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network

from lab.observe.headers import TCP, UDP, Packet
from lab.trace import Met

_SELECTOR = re.compile(r"src (\S+) dst (\S+)(?: proto (\S+))?(?: sport (\d+))?(?: dport (\d+))?")
_POLICY = re.compile(r"\s+dir (\w+)(?: action (\w+))?(?:.* priority (\d+))?")
_MARK = re.compile(r"\s+mark (\w+)/(\w+)")
_NUMBERS = {"udp": 17, "tcp": 6, "icmp": 1, "esp": 50}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy of ``ip xfrm policy``.

    Attributes:
        selector: as it was printed.
        protocol, sport, dport: 0 for any.
        direction: ``in``, ``out`` or ``fwd``.
        action: ``allow`` or ``block``.
        priority: the lowest is tried first.
        mark, mask: the packets meant; both 0 for all.
        template: what the packet must have been wrapped in; empty for plain ones.
    """

    selector: str
    source: IPv4Network
    destination: IPv4Network
    protocol: int = 0
    sport: int = 0
    dport: int = 0
    direction: str = "in"
    action: str = "allow"
    priority: int = 0
    mark: int = 0
    mask: int = 0
    template: str = ""

    def meets(self, packet: Packet, mark: int) -> bool:
        """Whether its selector takes this packet."""
        ports = packet.ports if packet.protocol in (TCP, UDP) else (0, 0)
        return (
            packet.source in self.source
            and packet.destination in self.destination
            and self.protocol in (0, packet.protocol)
            and self.sport in (0, ports[0])
            and self.dport in (0, ports[1])
            # as xfrm_policy_match() compares it
            and mark & self.mask == self.mark
        )

    @property
    def met(self) -> Met:
        """The policy as something met at a hop."""
        text = f"action {self.action} priority {self.priority}"
        if self.template:
            text += f", wants {self.template}"
        return Met(
            kind="xfrm",
            name=f"dir {self.direction} {self.selector}",
            text=text,
            verdict=self.action,
            source="first whose selector takes the packet",
        )


def parse_policies(text: str) -> tuple[Policy, ...]:
    """Return the IPv4 policies that ``ip xfrm policy`` printed, in the order they are tried."""
    found: list[Policy] = []
    # a policy begins in the first column, what belongs to it is indented
    for block in re.split(r"\n(?=src )", text.strip()):
        selector, policy = _SELECTOR.match(block), _POLICY.search(block)
        if selector is None or policy is None or ":" in selector[1]:
            continue
        mark = _MARK.search(block)
        template = re.search(r"\n\s+tmpl .*\n\s+(proto \S+)", block)
        found.append(
            Policy(
                selector=selector[0].strip(),
                source=IPv4Network(selector[1]),
                destination=IPv4Network(selector[2]),
                protocol=_number(selector[3]),
                sport=int(selector[4] or 0),
                dport=int(selector[5] or 0),
                direction=policy[1],
                action=policy[2] or "allow",
                priority=int(policy[3] or 0),
                mark=int(mark[1], 0) if mark else 0,
                mask=int(mark[2], 0) if mark else 0,
                template=template[1] if template else "",
            )
        )
    return tuple(sorted(found, key=lambda one: one.priority))


def _number(word: str | None) -> int:
    if not word:
        return 0
    # a name unknown here must match nothing: 255 is reserved
    return int(word) if word.isdecimal() else _NUMBERS.get(word, 255)
