"""What conntrack and NAT leave behind, and when to look again.

Expired entries are deleted; so are NAT entries whose flow conntrack no longer knows. The interval
follows Cilium's: five minutes at first, shorter when much was found, longer when little was.
Source: Cilium's ``pkg/maps/ctmap/gc``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from lab.kernel.bpfmap import BpfMap, get_pinned
from lab.layouts.core import LIVES, Index, Word
from lab.layouts.flows import CtEntry, NatEntry, Tuple4, TupleFlag
from lab.plan.steps import globals_dir

FIRST_INTERVAL_S = 300.0
# Cilium's bounds for the interval: ten seconds and twelve hours
SHORTEST_S, LONGEST_S = 10.0, 12 * 3600.0
MUCH, LITTLE = 0.25, 0.05
GROWTH = 1.5
CT_MAPS = ("cilium_ct4_global", "cilium_ct_any4_global")
NAT_MAP = "cilium_snat_v4_external"
TCP = 6


@dataclass(frozen=True, slots=True)
class Sweep:
    """How many entries were looked at, and how many deleted."""

    seen: int = 0
    deleted: int = 0

    def __add__(self, other: Sweep) -> Sweep:
        return Sweep(self.seen + other.seen, self.deleted + other.deleted)


def next_interval_s(interval_s: float, sweep: Sweep) -> float:
    """Return the seconds until the next collection after one that found ``sweep``."""
    share = sweep.deleted / sweep.seen if sweep.seen else 0.0
    if share > MUCH:
        return max(interval_s * (1 - share), SHORTEST_S)
    if share < LITTLE:
        return min(interval_s * GROWTH, LONGEST_S)
    return interval_s


def clock_s() -> float:
    """Return the monotonic clock in seconds, which the datapath's life times count in."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def collect_conntrack(node: str, now_s: float) -> Sweep:
    """Delete the entries of a node's conntrack maps that have expired by ``now_s``."""
    total = Sweep()
    for name in CT_MAPS:
        fd = get_pinned(Path(globals_dir(node), name))
        if fd is None:
            continue
        with BpfMap(fd, name=name) as table:
            rows = table.items()
            expired = [key for key, value in rows if CtEntry.unpack(value).lifetime < now_s]
            total += Sweep(len(rows), _delete(node, table, expired))
    return total


def forget_address(node: str, address: IPv4Address) -> Sweep:
    """Delete what a node remembers of an address: the next pod that gets it is another one.

    Else its peers could send it what passes for answers to its predecessor, past its policy.
    """
    total = Sweep()
    for name in (*CT_MAPS, NAT_MAP):
        fd = get_pinned(Path(globals_dir(node), name))
        if fd is None:
            continue
        with BpfMap(fd, name=name) as table:
            rows = table.items()
            named = [key for key, value in rows if address in _addresses(name, key, value)]
            total += Sweep(len(rows), _delete(node, table, named))
    return total


def _addresses(name: str, key: bytes, value: bytes) -> tuple[IPv4Address, ...]:
    flow = Tuple4.unpack(key)
    if name == NAT_MAP:
        return flow.saddr, flow.daddr, NatEntry.unpack(value).to_addr
    return flow.saddr, flow.daddr


def _delete(node: str, table: BpfMap, keys: list[bytes]) -> int:
    """Delete entries and count them: what is neither there nor deleted was evicted."""
    deleted = sum(table.delete(key) for key in keys)
    slot = Index(index=LIVES[table.name][1]).pack()
    with BpfMap.from_pin(Path(globals_dir(node), "cilium_runtime_config")) as words:
        before = Word.unpack(words.lookup(slot) or bytes(8)).value
        words.update(slot, Word(value=before + deleted).pack())
    return deleted


def collect_nat(node: str, now_s: float) -> Sweep:
    """Delete NAT entries whose flow is in no conntrack map any more.

    An entry younger than ten seconds stays: its conntrack entry may be about to be made.
    """
    fd = get_pinned(Path(globals_dir(node), NAT_MAP))
    if fd is None:
        return Sweep()
    flows = _live_flows(node)
    with BpfMap(fd, name=NAT_MAP) as table:
        rows = {key: NatEntry.unpack(value) for key, value in table.items()}
        orphans = [
            key
            for key, entry in rows.items()
            if now_s - entry.created > SHORTEST_S and not _known(key, entry, flows)
        ]
        return Sweep(len(rows), _delete(node, table, orphans))


Ends = tuple[frozenset[tuple[int, int]], int]


def _live_flows(node: str) -> set[Ends]:
    found: set[Ends] = set()
    for name in CT_MAPS:
        fd = get_pinned(Path(globals_dir(node), name))
        if fd is None:
            continue
        with BpfMap(fd, name=name) as table:
            for key in table.keys():  # noqa: SIM118 - a map, not a dict
                flow = Tuple4.unpack(key)
                # service entries name the frontend, which no translated packet carries
                if not flow.flags & TupleFlag.SERVICE:
                    # conntrack keys: addresses swapped, ports in true order
                    found.add(_ends(flow.daddr, flow.sport, flow.saddr, flow.dport, flow.nexthdr))
    return found


def _ends(a: object, a_port: int, b: object, b_port: int, protocol: int) -> Ends:
    return frozenset({(int(a), a_port), (int(b), b_port)}), protocol  # type: ignore[call-overload]


def _known(key: bytes, entry: NatEntry, live: set[Ends]) -> bool:
    flow = Tuple4.unpack(key)
    if flow.flags & TupleFlag.IN:
        # an answer: towards the translated address, back to the original one
        return _ends(flow.saddr, flow.sport, entry.to_addr, entry.to_port, flow.nexthdr) in live
    return _ends(flow.saddr, flow.sport, flow.daddr, flow.dport, flow.nexthdr) in live
