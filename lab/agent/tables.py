"""Frontends into a node's service maps, in an order that no running flow notices.

What must be there is written before what points at it: backends, reverse NAT, source ranges,
affinity and Maglev tables, then the rows of slots 1.., then the master row. Removal goes the other
way, once every program that may have read what pointed there has ended. Every single write is
atomic, so a packet meets either the old or the new backend, never none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from lab.agent import maglev
from lab.agent.services import (
    ANY_ADDRESS,
    PROTOCOLS,
    BackendFacts,
    Frontend,
    for_new_flows,
)
from lab.errors import InputError
from lab.kernel.bpf import wait_for_readers
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.layouts import flows
from lab.layouts.core import CidrKey, Flag, Index
from lab.layouts.flows import MAGLEV_SIZE, ServiceFlag
from lab.plan.steps import globals_dir

Rows = dict[bytes, bytes]

SERVICES = "cilium_lb4_services_v2"
BACKENDS = "cilium_lb4_backends"
AFFINITY = "cilium_lb_affinity_match"
MAGLEV = "cilium_lb4_maglev"
ACTIVE, TERMINATING = 0, 1
EXTERNAL, INTERNAL = 0, 1

IN_ORDER = (
    BACKENDS,
    "cilium_lb4_reverse_nat",
    "cilium_lb4_source_range",
    AFFINITY,
)
"""Tables that service rows refer to, in the order they are written."""

_KINDS = {
    "ClusterIP": ServiceFlag(0),
    "ExternalIP": ServiceFlag.EXTERNAL_IP | ServiceFlag.ROUTABLE,
    "LoadBalancer": ServiceFlag.LOADBALANCER | ServiceFlag.ROUTABLE,
    "NodePort": ServiceFlag.NODEPORT | ServiceFlag.ROUTABLE,
}


@dataclass(frozen=True, slots=True)
class Tables:
    """What a node's service maps have to hold.

    Attributes:
        rows: map name -> key -> value, in bytes.
        maglev: frontend id -> backend ids, for services that choose by hashing.
    """

    rows: Mapping[str, Rows]
    maglev: Mapping[int, tuple[int, ...]]


def build(frontends: Iterable[Frontend], node: str, *, maglev_tables: bool) -> Tables:
    """Return the rows of a node for its frontends.

    Args:
        frontends: those the node holds.
        node: its name, for traffic policies that keep to a node.
        maglev_tables: also make look-up tables.
    """
    rows: dict[str, Rows] = {name: {} for name in (*IN_ORDER, SERVICES)}
    hashed: dict[int, tuple[int, ...]] = {}
    shared: dict[tuple[int, ...], tuple[int, ...]] = {}
    for item in frontends:
        for backend in item.backends:
            key = flows.BackendKey(id=backend.id)
            rows[BACKENDS][key.pack()] = _backend(backend).pack()
        _refer(item, rows)
        for scope in _scopes(item):
            members = _members(item, node, scope)
            rows[SERVICES].update(_service_rows(item, scope, members))
            rows[AFFINITY].update(_affinity_rows(item, members))
        members = _members(item, node, EXTERNAL)
        if maglev_tables and members:
            ids = tuple(member.id for member in members)
            # filling one takes milliseconds, and the frontends of a service have the same members
            if ids not in shared:
                names = {f"{m.address}:{m.port}/{m.protocol}": m.id for m in members}
                shared[ids] = maglev.table(names, MAGLEV_SIZE)
            hashed[item.id] = shared[ids]
    return Tables(rows, hashed)


def _backend(backend: BackendFacts) -> flows.Backend:
    return flows.Backend(
        address=backend.address,
        port=backend.port,
        proto=PROTOCOLS[backend.protocol],
        flags=TERMINATING if backend.terminating else ACTIVE,
    )


def _refer(item: Frontend, rows: dict[str, Rows]) -> None:
    # no packet comes from the wildcard row's 0.0.0.0, so nothing is to be turned back into it
    if item.address != ANY_ADDRESS:
        key = flows.RevNatKey(index=item.id)
        value = flows.ReverseNat(address=item.address, port=item.port)
        rows["cilium_lb4_reverse_nat"][key.pack()] = value.pack()
    listed = Flag(value=1).pack()
    for network in _ranges(item):
        lpm = flows.SourceRangeKey.of(item.id, network)
        rows["cilium_lb4_source_range"][lpm.pack()] = listed


def _affinity_rows(item: Frontend, members: Sequence[BackendFacts]) -> Rows:
    # only who gets new flows: a client may come back to no other
    matches = (flows.AffinityMatch(backend_id=member.id, rev_nat_id=item.id) for member in members)
    return {match.pack(): Flag(value=1).pack() for match in matches if item.service.affinity_s}


def _ranges(item: Frontend) -> tuple[IPv4Network, ...]:
    if item.kind != "LoadBalancer":
        return ()
    return tuple(IPv4Network(network) for network in item.service.source_ranges)


def _local(item: Frontend, scope: int) -> bool:
    # a cluster IP is reached from inside only, the other kinds from both sides
    if scope == INTERNAL or item.kind == "ClusterIP":
        return item.service.internal_local
    return item.service.external_local


def _scopes(item: Frontend) -> tuple[int, ...]:
    # a second set of rows only where inside and outside see different backends
    two = _local(item, EXTERNAL) != _local(item, INTERNAL)
    return (EXTERNAL, INTERNAL) if two else (EXTERNAL,)


def _members(item: Frontend, node: str, scope: int) -> tuple[BackendFacts, ...]:
    keep = _local(item, scope)
    return for_new_flows(backend for backend in item.backends if not keep or backend.node == node)


def flags_of(item: Frontend) -> ServiceFlag:
    """Return the flags of a frontend's master row."""
    flags = _KINDS[item.kind]
    if item.service.affinity_s:
        flags |= ServiceFlag.AFFINITY
    if _ranges(item):
        flags |= ServiceFlag.SOURCE_RANGE
    if _local(item, EXTERNAL) and item.kind != "ClusterIP":
        flags |= ServiceFlag.EXT_LOCAL_SCOPE
    if _local(item, INTERNAL):
        flags |= ServiceFlag.INT_LOCAL_SCOPE
    if len(_scopes(item)) > 1:
        flags |= ServiceFlag.TWO_SCOPES
    return flags


def _service_rows(item: Frontend, scope: int, members: Sequence[BackendFacts]) -> Rows:
    rows: Rows = {}
    flags = flags_of(item)
    for slot in range(len(members) + 1):
        key = flows.ServiceKey(
            address=item.address,
            dport=item.port,
            backend_slot=slot,
            proto=PROTOCOLS[item.protocol],
            scope=scope,
        )
        value = flows.Service(
            # slot 0 has no backend: with affinity the field carries the seconds, as in Cilium
            backend_id=members[slot - 1].id if slot else item.service.affinity_s,
            count=0 if slot else len(members),
            rev_nat_index=item.id,
            flags=flags & 0xFF,
            flags2=flags >> 8,
        )
        rows[key.pack()] = value.pack()
    return rows


def check_room(node: str, wanted: Tables) -> None:
    """Refuse tables that a node's maps cannot hold, before anything is written.

    Raises:
        InputError: a map is too small; names it and both numbers.
    """
    with _Node(node) as maps:
        for name, rows in wanted.rows.items():
            room = maps.open(name).spec.max_entries
            if len(rows) > room:
                raise InputError(
                    f"{name} holds {room} rows, {len(rows)} are needed on {node!r}",
                    hint="apply fewer services, or fewer backends per service",
                )


def reconcile(node: str, wanted: Tables) -> int:
    """Make a node's maps hold exactly the tables; return how many rows changed.

    Raises:
        KernelError: a map is not there, or full: what was written before stays.
    """
    with _Node(node) as maps:
        changed = 0
        have = {name: dict(maps.open(name).items()) for name in wanted.rows}
        for name in IN_ORDER:
            changed += maps.write(name, have[name], wanted.rows[name])
        changed += _write_maglev(maps, wanted.maglev)
        services, present = wanted.rows[SERVICES], have[SERVICES]
        # a master says how many slots there are: they have to be there before it does
        slots = {key: value for key, value in services.items() if not is_master(key)}
        masters = {key: value for key, value in services.items() if is_master(key)}
        changed += maps.write(SERVICES, present, slots)
        changed += maps.write(SERVICES, present, masters)
        gone = {
            name: [key for key in have[name] if key not in wanted.rows[name]]
            for name in (SERVICES, *reversed(IN_ORDER))
        }
        # nobody is led any more to what goes afterwards: without its master a service is not found
        changed += maps.delete(SERVICES, filter(is_master, gone[SERVICES]))
        changed += maps.delete(AFFINITY, gone[AFFINITY])
        if any(gone.values()):
            wait_for_readers()
        gone[SERVICES] = [key for key in gone[SERVICES] if not is_master(key)]
        for name in (SERVICES, *reversed(IN_ORDER)):
            changed += maps.delete(name, gone[name])
        return changed


def is_master(key: bytes) -> bool:
    """Tell whether a service row is the one of slot 0."""
    return flows.ServiceKey.unpack(key).backend_slot == 0


class _Node:
    """The service maps of one node, each opened once."""

    def __init__(self, node: str) -> None:
        self.folder = Path(globals_dir(node))
        self.maps: dict[str, BpfMap] = {}

    def __enter__(self) -> _Node:
        return self

    def __exit__(self, *_: object) -> None:
        for item in self.maps.values():
            item.close()

    def open(self, name: str) -> BpfMap:
        if name not in self.maps:
            self.maps[name] = BpfMap.from_pin(self.folder / name)
        return self.maps[name]

    def write(self, name: str, have: Rows, wanted: Rows) -> int:
        rows = [(key, value) for key, value in wanted.items() if have.get(key) != value]
        self.open(name).update_many(rows)
        return len(rows)

    def delete(self, name: str, keys: Iterable[bytes]) -> int:
        table = self.open(name)
        return sum(table.delete(key) for key in keys)


def _write_maglev(maps: _Node, wanted: Mapping[int, tuple[int, ...]]) -> int:
    outer = maps.open(MAGLEV)
    changed = 0
    # what user space reads of a map in a map is the inner map's id
    for key, value in outer.items():
        number = flows.RevNatKey.unpack(key).index
        if number not in wanted:
            changed += outer.delete(key)
            continue
        with BpfMap.from_id(int.from_bytes(value, "little")) as inner:
            if inner.lookup(Index(index=0).pack()) == _pack(wanted[number]):
                wanted = {n: table for n, table in wanted.items() if n != number}
    for number, table in wanted.items():
        spec = MapSpec(MapType.ARRAY, 4, 4 * MAGLEV_SIZE, 1, 0)
        # a new table, exchanged as a whole: no packet sees half of it
        with BpfMap.create("cilium_maglev_i", spec) as inner:
            inner.update(Index(index=0).pack(), _pack(table))
            outer.update(flows.RevNatKey(index=number).pack(), inner.fd.to_bytes(4, "little"))
        changed += 1
    return changed


def prefilter(node: str, networks: Iterable[str]) -> int:
    """Make the prefilter of a node turn away exactly these sources; return how many.

    Single addresses go into the exact map, networks into the trie.

    Raises:
        InputError: one of them is no IPv4 network.
    """
    listed = {"cilium_cidr_v4_fix": set[bytes](), "cilium_cidr_v4_dyn": set[bytes]()}
    for text in networks:
        try:
            network = IPv4Network(text)
        except ValueError as error:
            raise InputError(f"{text!r}: {error}", hint="write it like 192.0.2.0/24") from None
        name = "cilium_cidr_v4_fix" if network.prefixlen == 32 else "cilium_cidr_v4_dyn"
        listed[name].add(CidrKey.of(network).pack())
    with _Node(node) as maps:
        for name, wanted in listed.items():
            have = set(maps.open(name).keys())
            # listed before others are taken off: a source that stays is turned away all the while
            maps.write(name, {}, {key: Flag(value=1).pack() for key in wanted - have})
            maps.delete(name, have - wanted)
    return sum(map(len, listed.values()))


def _pack(table: Sequence[int]) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in table)
