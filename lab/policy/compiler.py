"""Objects and pods -> identities, ipcache and the entries of every endpoint's policy map.

:class:`Compiler` keeps what earlier calls found out, so that one changed label costs as much as
the endpoints that can tell the difference; :func:`difference` is what must be written then, in
an order that leaves no gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lab.errors import InputError
from lab.policy.entries import MAP_CAPACITY, EntryKey, Match, look_up, port_prefixes
from lab.policy.identities import Identity, IdentityTable, Refinement, pod_labels
from lab.policy.labels import LabelMatch, index
from lab.policy.objects import (
    PROTOCOL_NUMBERS,
    Cluster,
    Direction,
    Policy,
    Semantics,
    Workload,
)
from lab.policy.rules import Normalised, PortSpan, Rule, normalise

HOST = 1
NOT_SELECTED = "no policy selects the pod in this direction"
OWN_NODE = "a pod's own node always reaches it"
OWN_NODE_EGRESS = "a pod always reaches its own node (semantics: k8s)"


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """The policy map of one endpoint.

    Attributes:
        entries: key -> deny flag.
        origins: key -> the rules that put the entry there.
        isolated: directions in which what no entry allows is dropped, with the policies' titles.
    """

    entries: Mapping[EntryKey, bool]
    origins: Mapping[EntryKey, tuple[str, ...]]
    isolated: Mapping[Direction, tuple[str, ...]]

    def look_up(self, identity: int, direction: Direction, protocol: int, port: int) -> Match:
        """Decide for a packet from or to ``identity`` as the datapath would."""
        return look_up(
            self.entries, identity=identity, direction=direction, protocol=protocol, port=port
        )


@dataclass(frozen=True, slots=True)
class Compiled:
    """Everything that policy asks the datapath to hold.

    Attributes:
        identities: number -> identity, reserved ones included.
        identity_of: ``namespace/pod`` -> number.
        addresses: ``namespace/pod`` -> IPv4 address.
        networks: CIDR -> identity number, for the ipcache.
        endpoints: ``namespace/pod`` -> policy map.
    """

    identities: Mapping[int, Identity]
    identity_of: Mapping[str, int]
    addresses: Mapping[str, str]
    networks: Mapping[str, int]
    endpoints: Mapping[str, EndpointPolicy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The way from one compilation to the next; write the fields in this order.

    Attributes:
        add: ``namespace/pod`` -> entries to write, key -> deny flag.
        identify: ``namespace/pod`` -> new identity, for ``cilium_lxc``, ipcache and program.
        networks: CIDR -> identity to write to the ipcache.
        forget_networks: CIDRs to delete from the ipcache.
        remove: ``namespace/pod`` -> keys to delete, last, once nobody uses them.
    """

    add: Mapping[str, Mapping[EntryKey, bool]]
    identify: Mapping[str, int]
    networks: Mapping[str, int]
    forget_networks: tuple[str, ...]
    remove: Mapping[str, tuple[EntryKey, ...]]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self.add or self.identify or self.networks or self.forget_networks or self.remove
        )


def difference(before: Compiled | None, after: Compiled) -> Update:
    """Return what must be written to a datapath that holds ``before`` so that it holds ``after``.

    Entries for new identities come before the identities are used and go after they are not, so
    no packet meets a moment in which neither the old nor the new state decides.
    """
    add: dict[str, dict[EntryKey, bool]] = {}
    remove: dict[str, tuple[EntryKey, ...]] = {}
    old_endpoints = before.endpoints if before else {}
    for name, endpoint in after.endpoints.items():
        old = old_endpoints[name].entries if name in old_endpoints else {}
        # the compiler hands out the same object as long as nothing changed
        if old is endpoint.entries:
            continue
        written = {k: deny for k, deny in endpoint.entries.items() if old.get(k) is not deny}
        gone = tuple(key for key in old if key not in endpoint.entries)
        if written:
            add[name] = written
        if gone:
            remove[name] = gone
    known = before.identity_of if before else {}
    networks = before.networks if before else {}
    return Update(
        add=add,
        identify={k: n for k, n in after.identity_of.items() if known.get(k) != n},
        networks={k: n for k, n in after.networks.items() if networks.get(k) != n},
        forget_networks=tuple(k for k in networks if k not in after.networks),
        remove=remove,
    )


@dataclass(frozen=True, slots=True)
class _Wired:
    # a rule whose selectors are numbers, so that membership is one look-up
    rule: Rule
    subject: int
    peers: tuple[int, ...] | None
    requires: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Pieces:
    # a policy in normal form with numbered selectors
    normal: Normalised
    rules: tuple[_Wired, ...]
    isolations: tuple[tuple[int, Direction, str], ...]


class _Selectors:
    """Numbers for selectors, and the identities each selects, kept up to date."""

    def __init__(self) -> None:
        self.numbers: dict[LabelMatch, int] = {}
        self.members: list[frozenset[int]] = []
        self.matches: list[LabelMatch] = []
        self.known: dict[int, tuple[str, ...]] = {}
        self.indexes: dict[int, dict[str, str]] = {}

    def number(self, match: LabelMatch) -> int:
        """Return the selector's number, evaluating it against all identities when new."""
        found = self.numbers.get(match)
        if found is None:
            found = self.numbers[match] = len(self.matches)
            self.matches.append(match)
            self.members.append(
                frozenset(n for n, labels in self.indexes.items() if match.selects(labels))
            )
        return found

    def learn(self, identities: Mapping[int, Identity]) -> None:
        """Take in new, changed and gone identities."""
        fresh = {n for n, i in identities.items() if self.known.get(n) != i.labels}
        stale = {n for n in self.known if n not in identities} | (fresh & self.known.keys())
        if not fresh and not stale:
            return
        for number in stale:
            del self.known[number], self.indexes[number]
        having: dict[str, set[int]] = {}
        for number in fresh:
            self.known[number] = identities[number].labels
            self.indexes[number] = index(identities[number].labels)
            for key in self.indexes[number]:
                having.setdefault(key, set()).add(number)
        for place, match in enumerate(self.matches):
            members = self.members[place]
            # thousands of networks, each with a selector and an identity: only who has the label
            candidates = fresh if match.needs is None else having.get(match.needs, set())
            now = {n for n in candidates if match.selects(self.indexes[n])}
            if now or members & stale:
                # the object stays the same when the members do: callers compare by identity
                changed = (members - stale) | now
                if changed != members:
                    self.members[place] = changed


@dataclass(slots=True)
class _Draft:
    # entries of one endpoint while they are collected
    allow: dict[EntryKey, list[str]] = field(default_factory=dict)
    deny: dict[EntryKey, list[str]] = field(default_factory=dict)

    def finish(self, isolated: Mapping[Direction, tuple[str, ...]]) -> EndpointPolicy:
        # the most specific entry answers: an allow below a deny would hide the deny
        kept = dict(self.allow)
        if self.deny:
            kept = {
                key: origins
                for key, origins in self.allow.items()
                if not any(parent in self.deny for parent in key.parents())
            }
        entries = {**dict.fromkeys(kept, False), **dict.fromkeys(self.deny, True)}
        origins = {**kept, **self.deny}
        return EndpointPolicy(
            entries, {key: tuple(dict.fromkeys(names)) for key, names in origins.items()}, isolated
        )


class Compiler:
    """Compiles clusters and policies, one after the other, reusing what did not change."""

    def __init__(
        self, semantics: Semantics = Semantics.K8S, table: IdentityTable | None = None
    ) -> None:
        self.semantics = semantics
        self._table = table or IdentityTable()
        self._selectors = _Selectors()
        self._pieces: dict[Policy, _Pieces] = {}
        self._endpoints: dict[tuple[object, ...], tuple[tuple[object, ...], EndpointPolicy]] = {}

    def meaning(self, semantics: Semantics) -> Compiler:
        """Return a compiler for other semantics that goes on with the same numbers."""
        return Compiler(semantics, self._table)

    def adopt(self, cluster: Cluster, numbers: Mapping[str, int]) -> None:
        """Keep the numbers that pods already have: ``namespace/pod`` -> identity.

        Where policies tell apart pods that share a number, one of them gets a new one.
        """
        plain = Refinement()
        for pod in cluster.workloads:
            if pod.title in numbers:
                key = pod_labels(cluster, pod, self.semantics, plain)
                self._table.allocated.setdefault(key, numbers[pod.title])

    def compile(self, cluster: Cluster, policies: Iterable[Policy]) -> Compiled:
        """Return what the datapath must hold for these pods under these policies.

        Raises:
            InputError: a policy says something impossible, or an endpoint's entries exceed the
                capacity of its map; nothing of the compiler's state is used then.
        """
        self._forget_unused()
        pieces = self._normalised(policies)
        cidrs = frozenset(cidr for piece in pieces for cidr in piece.normal.cidrs)
        # what is in no policy must not split identities: each more costs an entry in every map that
        # allows it
        refinement = Refinement(
            frozenset(cidr for piece in pieces for cidr in piece.normal.pod_blocks),
            frozenset(name for piece in pieces for name in piece.normal.peer_port_names),
        )
        labels = {
            pod.title: pod_labels(cluster, pod, self.semantics, refinement)
            for pod in cluster.workloads
        }
        identities = self._table.update(labels.values(), cidrs)
        self._selectors.learn(identities)
        names = {name: self._table.allocated[key] for name, key in labels.items()}
        run = _Run(self.semantics, self._selectors, pieces, identities, cluster, refinement)
        endpoints: dict[str, EndpointPolicy] = {}
        seen: dict[tuple[object, ...], tuple[tuple[object, ...], EndpointPolicy]] = {}
        for pod in cluster.workloads:
            # equal identity and equal named ports: equal entries, worked out once
            key = (names[pod.title], pod.ports)
            if key not in seen:
                evidence = run.evidence(names[pod.title])
                old = self._endpoints.get(key)
                # members are compared by object: an unchanged set is the same object
                same = old is not None and _same(old[0], evidence)
                seen[key] = (evidence, old[1] if old and same else run.endpoint(*key))
            endpoints[pod.title] = seen[key][1]
            _check_capacity(pod, endpoints[pod.title])
        self._endpoints = seen
        return Compiled(
            identities,
            names,
            {pod.title: pod.address for pod in cluster.workloads},
            dict(self._table.networks),
            endpoints,
        )

    def _forget_unused(self) -> None:
        # selectors of policies long gone would be evaluated for every new identity
        used = sum(2 * len(piece.rules) + 2 for piece in self._pieces.values())
        if len(self._selectors.matches) > 1000 + 4 * used:
            self._selectors = _Selectors()
            self._pieces = {}
            self._endpoints = {}

    def _normalised(self, policies: Iterable[Policy]) -> list[_Pieces]:
        kept: dict[Policy, _Pieces] = {}
        for policy in policies:
            kept[policy] = self._pieces.get(policy) or self._wire(policy)
        self._pieces = kept
        return list(kept.values())

    def _wire(self, policy: Policy) -> _Pieces:
        normal = normalise(policy, self.semantics)
        number = self._selectors.number
        rules = tuple(
            _Wired(
                rule,
                number(rule.subject),
                None if rule.peers is None else tuple(number(peer) for peer in rule.peers),
                tuple(number(item) for item in rule.requires),
            )
            for rule in normal.rules
        )
        isolations = tuple((number(i.subject), i.direction, i.origin) for i in normal.isolations)
        return _Pieces(normal, rules, isolations)


def _same(left: tuple[object, ...], right: tuple[object, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _check_capacity(pod: Workload, endpoint: EndpointPolicy) -> None:
    if len(endpoint.entries) > MAP_CAPACITY:
        raise InputError(
            f"pod {pod.title!r} needs {len(endpoint.entries)} policy entries, "
            f"its map holds {MAP_CAPACITY}",
            hint="use fewer peers per rule, or port ranges that end at powers of two",
        )


class _Run:
    """One compilation: which rules select an identity, and the entries that follow."""

    def __init__(
        self,
        semantics: Semantics,
        selectors: _Selectors,
        pieces: list[_Pieces],
        identities: Mapping[int, Identity],
        cluster: Cluster,
        refinement: Refinement,
    ) -> None:
        self.semantics = semantics
        self.members = selectors.members
        self.identities = identities
        self.selecting: dict[int, list[_Wired]] = {}
        self.isolating: dict[int, list[tuple[int, Direction, str]]] = {}
        for piece in pieces:
            for wired in piece.rules:
                for number in self.members[wired.subject]:
                    self.selecting.setdefault(number, []).append(wired)
            for isolation in piece.isolations:
                for number in self.members[isolation[0]]:
                    self.isolating.setdefault(number, []).append(isolation)
        self.peer_ports = self._peer_ports(cluster, refinement)

    def _peer_ports(self, cluster: Cluster, refinement: Refinement) -> dict[object, object]:
        # named port -> its one number (cilium), or -> {identity: number} (k8s)
        found: dict[object, object] = {}
        for name, protocol in refinement.port_names:
            if self.semantics is Semantics.K8S:
                prefix = f"port:{name}/{protocol}="
                found[name, protocol] = {
                    number: tuple(
                        int(label.removeprefix(prefix))
                        for label in identity.labels
                        if label.startswith(prefix)
                    )
                    for number, identity in self.identities.items()
                    if any(label.startswith(prefix) for label in identity.labels)
                }
                continue
            numbers = {
                port.number
                for pod in cluster.workloads
                for port in pod.ports
                if port.name == name and PROTOCOL_NUMBERS[port.protocol] == protocol
            }
            # Cilium: where pods give one name several numbers, the rule says nothing
            found[name, protocol] = numbers.pop() if len(numbers) == 1 else None
        return found

    def evidence(self, identity: int) -> tuple[object, ...]:
        """Return the objects that an endpoint's entries depend on, for comparison by object."""
        found: list[object] = []
        for wired in self.selecting.get(identity, ()):
            found.append(wired)
            found += [self.members[peer] for peer in wired.peers or ()]
            found += [self.members[peer] for peer in wired.requires]
            if any(span.name for span in wired.rule.spans):
                # no run is the object of another: a named port may mean other numbers now
                found.append(self)
        found += self.isolating.get(identity, ())
        return tuple(found)

    def endpoint(self, identity: int, ports: object) -> EndpointPolicy:
        """Collect the entries of an endpoint from the rules that select its identity."""
        draft = _Draft()
        rules = self.selecting.get(identity, [])
        needs = {
            direction: [n for w in rules if w.rule.direction is direction for n in w.requires]
            for direction in Direction
        }
        for wired in rules:
            table = draft.deny if wired.rule.deny else draft.allow
            for key in self._keys(wired, ports, needs[wired.rule.direction]):
                table.setdefault(key, []).append(wired.rule.origin)
        isolated: dict[Direction, tuple[str, ...]] = {}
        for _, direction, origin in self.isolating.get(identity, ()):
            isolated[direction] = (*isolated.get(direction, ()), origin)
        for direction in Direction:
            egress = direction is Direction.EGRESS
            if direction not in isolated:
                draft.allow.setdefault(EntryKey(0, egress), []).append(NOT_SELECTED)
            # the kubelet has to reach its pods whatever policies say, for its probes
            elif not egress:
                draft.allow.setdefault(EntryKey(HOST, egress), []).append(OWN_NODE)
            elif self.semantics is Semantics.K8S:
                draft.allow.setdefault(EntryKey(HOST, egress), []).append(OWN_NODE_EGRESS)
        return draft.finish(isolated)

    def _keys(self, wired: _Wired, ports: object, needs: list[int]) -> Iterator[EntryKey]:
        rule = wired.rule
        egress = rule.direction is Direction.EGRESS
        peers: Iterable[int] = (0,)
        if wired.peers is not None:
            members = set().union(*(self.members[peer] for peer in wired.peers))
            if rule.confined:
                for need in needs:
                    members &= self.members[need]
            peers = sorted(members)
        if not rule.spans:
            yield from (EntryKey(peer, egress) for peer in peers)
            return
        for span in rule.spans:
            for peer, first, last in self._resolved(span, peers, egress, ports):
                # a range of ports is as many entries as it has blocks
                for port, bits in port_prefixes(first, last):
                    yield EntryKey(peer, egress, span.protocol, port, bits)

    def _resolved(
        self, span: PortSpan, peers: Iterable[int], egress: bool, ports: object
    ) -> Iterator[tuple[int, int, int]]:
        if span.name is None:
            yield from ((peer, span.first, span.last) for peer in peers)
        elif not egress:
            assert isinstance(ports, tuple)
            for port in ports:
                if port.name == span.name and PROTOCOL_NUMBERS[port.protocol] == span.protocol:
                    yield from ((peer, port.number, port.number) for peer in peers)
        else:
            known = self.peer_ports[span.name, span.protocol]
            if isinstance(known, int):
                yield from ((peer, known, known) for peer in peers)
            elif isinstance(known, dict):
                wanted = set(peers)
                for peer, numbers in known.items():
                    # a name has a number for each destination: "anybody" has to be written out
                    if 0 in wanted or peer in wanted:
                        yield from ((peer, number, number) for number in numbers)
