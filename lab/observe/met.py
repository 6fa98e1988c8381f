"""What the kernel's own tables said beside a packet's hops: rules, connections, routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from lab.kernel.nfnetlink import Connection, RuleMet, Tracked
from lab.observe.headers import ICMP, Packet, network_bytes_of, outermost, parse
from lab.observe.identify import Journey
from lab.observe.legacy import Counted, add_legacy
from lab.observe.names import Names
from lab.observe.policies import Policy
from lab.observe.records import Kind
from lab.observe.rules import OWN_TABLE, Base, Ruleset
from lab.trace import Evidence, Hop, Met, SendHook, Step

_NF_HOOKS = {
    "prerouting": "nf_prerouting",
    "input": "nf_input",
    "forward": "nf_forward",
    "output": "nf_output",
    "postrouting": "nf_postrouting",
    "ingress": "nf_ingress",
}
_CONFIRMS = ("nf_input", "nf_postrouting")
"""A connection becomes known behind the last hook of the way."""

_ROUTING = ("ip_routing", "route_output")
# RTN_* of linux/rtnetlink.h
_ROUTE_TYPES = {1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast",
                6: "blackhole", 7: "unreachable", 8: "prohibit"}  # fmt: skip
# enum ip_conntrack_info, the low bits of skb->_nfct; CT_KNOWN tells its 0 from no entry
_CT_STATES = {0: "established", 1: "related", 2: "new", 3: "reply", 4: "related reply",
              7: "untracked"}  # fmt: skip
_CT_KNOWN = 8
_SOURCE = "nftrace"


@dataclass(frozen=True, slots=True)
class Told:
    """What netfilter told while packets were recorded.

    Attributes:
        events: (namespace inode, time it was read, event), in the order of each namespace.
        rulesets: namespace inode -> the rules at that time.
        legacy: namespace inode -> what rules of iptables-legacy had counted before and after.
        policies: namespace inode -> its IPsec policies, in the order they are tried.
    """

    events: Sequence[tuple[int, int, RuleMet | Connection]] = ()
    rulesets: Mapping[int, Ruleset] = field(default_factory=dict)
    policies: Mapping[int, Sequence[Policy]] = field(default_factory=dict)
    legacy: Mapping[int, tuple[Counted, Counted]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Sight:
    """One hop of one packet, and the outermost headers seen there."""

    packet: int
    hop: int
    hook: str
    ns: int
    seen: Packet


@dataclass(slots=True)
class _Passing:
    """A buffer on its way through the chains of a namespace."""

    packet: int | None = None
    seen: Packet | None = None
    sight: _Sight | None = None
    device: str = ""


def add_met(
    lines: Sequence[tuple[Hop, ...]], found: Sequence[Journey], told: Told, names: Names
) -> list[tuple[Hop, ...]]:
    """Return every packet's lines with what it met there.

    Args:
        lines: one tuple per packet.
        found: the records of the same packets.
        told: by netfilter.
        names: for namespaces and devices.
    """
    changed = [list(hops) for hops in lines]
    for journey, hops in zip(found, changed, strict=True):
        _routes(journey, hops, names)
        _policies(journey, hops, told.policies, names)
    if told.events:
        joining = _Joining(changed, told, names)
        for netns, _, event in told.events:
            if isinstance(event, RuleMet):
                joining.rule(netns, event)
        joining.connections()
    for netns, (before, after) in told.legacy.items():
        add_legacy(changed, names.place(netns, 0).namespace, before, after)
    return [tuple(hops) for hops in changed]


class _Joining:
    def __init__(self, lines: list[list[Hop]], told: Told, names: Names) -> None:
        self.lines = lines
        self.told = told
        self.names = names
        self.sights: dict[str, list[_Sight]] = {}
        self.passing: dict[tuple[int, int], _Passing] = {}
        self.walked: set[tuple[int, int, tuple[str, str, str]]] = set()
        for packet, hops in enumerate(lines):
            for index, hop in enumerate(hops):
                seen = _headers(hop)
                if seen is not None:
                    sight = _Sight(packet, index, hop.hook, hop.ns, seen)
                    self.sights.setdefault(hop.namespace, []).append(sight)
        for all_here in self.sights.values():
            all_here.sort(key=lambda sight: sight.ns)

    # -- rules ----------------------------------------------------------------------------------

    def rule(self, netns: int, event: RuleMet) -> None:
        """Put a rule, or a chain's policy, beside the hop in which it was met."""
        passing = self.passing.setdefault((netns, event.number), _Passing())
        ruleset = self.told.rulesets.get(netns, Ruleset())
        chain = (event.family, event.table, event.chain)
        if event.packet:
            passing.sight = None
            here = self.names.place(netns, 0).namespace
            self._begins(passing, here, event, ruleset.bases.get(chain))
        ends = event.kind == "rule" and not event.handle  # the end of a chain without a verdict
        if passing.sight is None or ends or event.table.startswith(OWN_TABLE):
            return
        at = passing.sight
        hop = self.lines[at.packet][at.hop]
        if hop.evidence is Evidence.IMPLIED and hop.step is Step.NETFILTER_INGRESS:
            name = "chain " + " ".join(chain)
            hop = replace(
                hop,
                evidence=Evidence.PROGRAM,
                reason=f"{name} told of the packet",
                object=name,
            )
        self.lines[at.packet][at.hop] = replace(hop, met=(*hop.met, _rule(event, ruleset)))

    def _begins(self, passing: _Passing, namespace: str, event: RuleMet, base: Base | None) -> None:
        """A chain is entered: which packet is it, and which of its visits of this hook?"""
        seen = parse(event.packet, through=False)
        if seen is None:
            return
        chain = (event.family, event.table, event.chain)
        hook = _NF_HOOKS.get(base.hook, "") if base else ""
        all_here = self.sights.get(namespace, [])
        same = [sight for sight in all_here if _same(sight.seen, seen)]
        if not same and passing.seen is not None and _alike(passing.seen, seen):
            # translated by an earlier chain of the same hook
            same = [sight for sight in all_here if sight.packet == passing.packet]
        wanted = [sight for sight in same if sight.hook == hook] or self._implied(same, hook)
        for sight in wanted:
            place = (sight.packet, sight.hop, chain)
            if place not in self.walked:
                self.walked.add(place)
                passing.sight, passing.packet, passing.seen = sight, sight.packet, seen
                return

    def _implied(self, same: Iterable[_Sight], hook: str) -> list[_Sight]:
        """A hook that nothing but the rule itself reports: its line was made without a sight."""
        found = []
        for sight in same:
            place = self.lines[sight.packet][sight.hop].place
            for index, hop in enumerate(self.lines[sight.packet]):
                if hop.taken and hop.hook == hook and hop.place == place and not _headers(hop):
                    found.append(_Sight(sight.packet, index, hook, hop.ns, sight.seen))
        return found

    # -- connections ----------------------------------------------------------------------------

    def connections(self) -> None:
        """Put each event of a connection beside the hop of the packet that can have caused it."""
        reached: dict[tuple[int, int], int] = {}
        for netns, read_ns, event in self.told.events:
            if not isinstance(event, Connection):
                continue
            here = self.names.place(netns, 0).namespace
            after = reached.get((netns, event.number), 0)
            sight = self._cause(here, event, after, read_ns)
            if sight is None:
                continue
            reached[netns, event.number] = sight.ns
            hop = self.lines[sight.packet][sight.hop]
            met = (*hop.met, _connection(event))
            state = hop.ct_state or (event.what if event.what == "new" else "")
            self.lines[sight.packet][sight.hop] = replace(hop, met=met, ct_state=state)

    def _cause(
        self, namespace: str, event: Connection, after_ns: int, read_ns: int
    ) -> _Sight | None:
        answers = event.what == "update" and bool(event.status & Tracked.SEEN_REPLY)
        ways = {event.reply, _turned(event.original)}
        if not (answers and not after_ns):
            ways |= {event.original, _turned(event.reply)}
        # an event has no time: it happened behind its connection's last one, before it was read
        candidates = [
            sight
            for sight in self.sights.get(namespace, [])
            if sight.hook in _CONFIRMS and after_ns < sight.ns <= read_ns
            and _way_of(sight.seen) in ways and _fits(event, sight.seen)
        ]  # fmt: skip
        return candidates[0] if candidates else None


def _headers(hop: Hop) -> Packet | None:
    if not hop.taken or not hop.before:
        return None
    data = network_bytes_of(hop.before) if hop.link_layer == "ethernet" else hop.before
    return parse(data, through=False)


def _same(one: Packet, other: Packet) -> bool:
    return (one.protocol, one.source, one.destination, one.ident, one.ports) == (
        other.protocol, other.source, other.destination, other.ident, other.ports,
    ) and one.serial == other.serial  # fmt: skip


def _alike(one: Packet, other: Packet) -> bool:
    return (one.protocol, one.ident) == (other.protocol, other.ident)


def _rule(event: RuleMet, ruleset: Ruleset) -> Met:
    where = f"{event.family} {event.table} {event.chain}"
    if event.kind == "policy":
        return Met(kind="policy", name=where, text=f"policy {event.verdict}",
                   verdict=event.verdict, source=_SOURCE)  # fmt: skip
    text = ruleset.rules.get(((event.family, event.table, event.chain), event.handle), "")
    return Met(kind="rule", name=f"{where} handle {event.handle}", text=text,
               verdict=event.verdict, source=_SOURCE)  # fmt: skip


Way = tuple[int, bytes, bytes, int, int]


def _turned(one: Way) -> Way:
    protocol, source, destination, first, second = one
    return (protocol, destination, source, second, first)


def _way_of(packet: Packet) -> Way:
    first, second = packet.ports
    if packet.protocol == ICMP:
        # ports[0] is type and code; ctnetlink gives the identifier in place of both ports
        first = second
    return (packet.protocol, packet.source.packed, packet.destination.packed, first, second)


# by which segment conntrack gets there (tcp_conntracks[] of nf_conntrack_proto_tcp.c)
_FLAGS_OF_STATE = {
    "SYN_RECV": "SYN,ACK",
    "ESTABLISHED": "ACK",
    "FIN_WAIT": "FIN",
    "LAST_ACK": "FIN",
    "TIME_WAIT": "ACK",
    "CLOSE_WAIT": "ACK",
    "CLOSE": "RST",
}


def _fits(event: Connection, packet: Packet) -> bool:
    """Whether this segment can have brought a connection into its new state."""
    if event.what != "update" or not event.state:
        return True
    wanted = _FLAGS_OF_STATE.get(event.state, "")
    return set(wanted.split(",")) <= {*packet.info.split(","), ""}


def _connection(event: Connection) -> Met:
    protocol, source, destination, sport, dport = event.original
    way = f"{IPv4Address(source)}:{sport} -> {IPv4Address(destination)}:{dport}"
    words = [way, event.state or "", *_status(event.status)]
    if event.reply != _turned(event.original) and event.reply[1]:
        _, source, destination, sport, dport = event.reply
        words.append(f"answers {IPv4Address(source)}:{sport} -> {IPv4Address(destination)}:{dport}")
    if event.timeout_s:
        words.append(f"timeout {event.timeout_s} s")
    return Met(
        kind="conntrack",
        name=f"protocol {protocol} id {event.number}",
        text=", ".join(filter(None, words)),
        verdict=event.what,
        source="ctnetlink",
    )


def _status(status: Tracked) -> list[str]:
    words = [] if status & Tracked.SEEN_REPLY else ["unreplied"]
    shown = (Tracked.ASSURED, Tracked.SRC_NAT, Tracked.DST_NAT)
    return words + [str(flag.name).lower() for flag in shown if status & flag]


# -- what a packet carries through the hooks -------------------------------------------------------


def _routes(journey: Journey, hops: list[Hop], names: Names) -> None:
    """Say where routing sent the packet, and what conntrack held it for, as its buffer says."""
    for record in journey.records:
        if record.kind not in (Kind.NETFILTER_FIRST, Kind.NETFILTER_LAST):
            continue
        namespace = names.place(record.netns, 0).namespace
        here = [
            index
            for index, hop in enumerate(hops)
            if hop.taken and hop.namespace == namespace and hop.ns <= record.ns
        ]
        # netfilter_state() of packet.bpf.c: conntrack in the low byte, rt_type above it
        word = _ROUTE_TYPES.get(record.state >> 8 & 0xFF)
        if record.kind is Kind.NETFILTER_FIRST and word:
            _route(hops, here, word)
        elif record.kind is Kind.NETFILTER_LAST and record.state & _CT_KNOWN:
            hook = next((i for i in reversed(here) if hops[i].hook.startswith("nf_")), None)
            state = _CT_STATES.get(record.state & 7, "")
            if hook is not None and not hops[hook].ct_state:
                hops[hook] = replace(hops[hook], ct_state=state)


_CHECKS = {"xfrm_policy": "in", "xfrm_policy_l4": "in", "xfrm_policy_forward": "fwd",
           SendHook.XFRM_OUT.value: "out"}  # fmt: skip
"""Where IPsec policies decide, and those of which direction."""


def _policies(
    journey: Journey, hops: list[Hop], known: Mapping[int, Sequence[Policy]], names: Names
) -> None:
    """Name the policy that the check of a packet found, by the packet's last sight before it."""
    for netns, policies in known.items():
        namespace = names.place(netns, 0).namespace
        here = [record for record in journey.records if record.netns == netns and record.packet]
        for index, hop in enumerate(hops):
            if hop.hook not in _CHECKS or not hop.taken or hop.namespace != namespace:
                continue
            before = [record for record in here if record.ns <= hop.ns]
            packet = outermost(before[-1]) if before else None
            if packet is None:
                continue
            mark = before[-1].mark
            way = _CHECKS[hop.hook]
            taken = (one for one in policies if one.direction == way and one.meets(packet, mark))
            if (policy := next(taken, None)) is not None:
                hops[index] = replace(hop, met=(policy.met, *hop.met))


def _route(hops: list[Hop], here: list[int], word: str) -> None:
    at = next((index for index in reversed(here) if hops[index].hook in _ROUTING), None)
    if at is None or any(met.kind == "route" for met in hops[at].met):
        return
    answers = [look_up for look_up in hops[at].lookups if look_up.value is not None]
    table = answers[-1].map.removeprefix("route ") if answers else "none asked"
    text = f"{word} {answers[-1].value}" if answers else word
    met = Met(kind="route", name=table, text=text, verdict=word, source="the buffer's route")
    hops[at] = replace(hops[at], met=(*hops[at].met, met))
