"""What conntrack and NAT leave behind, and when to look again.

Expired entries are deleted; so are NAT entries whose flow conntrack no longer knows. The interval
follows Cilium's: five minutes at first, shorter when much was found, longer when little was.
Source: Cilium's ``pkg/maps/ctmap/gc``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
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
# shares of the entries that were deleted, and what a longer interval grows by: Cilium's, too
MUCH, LITTLE = 0.25, 0.05
GROWTH = 1.5
CT_MAPS = ("cilium_ct4_global", "cilium_ct_any4_global")
NAT_MAP = "cilium_snat_v4_external"


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
            expired = [key for key, value in rows if _expired(value, now_s)]
            gone = _reclaim(table, expired, lambda _, value: _expired(value, now_s))
            total += Sweep(len(rows), _count(node, table, gone))
    return total


def _expired(value: bytes, now_s: float) -> bool:
    return CtEntry.unpack(value).lifetime < now_s


def _reclaim(
    table: BpfMap, keys: Iterable[bytes], is_garbage: Callable[[bytes, bytes], bool]
) -> int:
    """Delete those of the entries that nobody has used since they were listed; return how many.

    The kernel compares nothing when it deletes, so that a packet may always come in between. What
    it has changed by then is seen in the value that the deletion returns, and put back, unless the
    datapath has made the entry anew, which then counts. Unseen remain a packet of a flow that had
    expired already between the two system calls, which finds no entry and is judged as the first
    of its flow, and one that held the entry while it was deleted: the next of its flow is judged.
    """
    deleted = 0
    for key in keys:
        value = table.lookup(key)
        if value is None or not is_garbage(key, value):
            continue
        last = table.take(key)
        if last is not None and (is_garbage(key, last) or not table.add(key, last)):
            deleted += 1
    return deleted


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
            # no second look: whoever uses it now takes the next pod for the one that is gone
            gone = sum(table.delete(key) for key in named)
            total += Sweep(len(rows), _count(node, table, gone))
    return total


def _addresses(name: str, key: bytes, value: bytes) -> tuple[IPv4Address, ...]:
    flow = Tuple4.unpack(key)
    if name == NAT_MAP:
        return flow.saddr, flow.daddr, NatEntry.unpack(value).to_addr
    return flow.saddr, flow.daddr


def _count(node: str, table: BpfMap, deleted: int) -> int:
    """Note how many entries were deleted: what is neither there nor deleted was evicted."""
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
    # before the NAT entries: a flow that begins in between has an entry too young to be an orphan
    flows = _live_flows(node)
    with BpfMap(fd, name=NAT_MAP) as table, ExitStack() as stack:
        tracked = _conntrack(node, stack)
        rows = {key: NatEntry.unpack(value) for key, value in table.items()}
        orphans = [
            key
            for key, entry in rows.items()
            if now_s - entry.created > SHORTEST_S and not _known(key, entry, flows)
        ]
        # the way out first: a flow that comes back to life then finds its port by the way back
        orphans.sort(key=lambda key: Tuple4.unpack(key).flags & TupleFlag.IN)
        gone = _reclaim(table, orphans, lambda key, value: not _tracked(key, value, tracked))
        return Sweep(len(rows), _count(node, table, gone))


def _conntrack(node: str, stack: ExitStack) -> list[BpfMap]:
    """Open the conntrack maps that there are, TCP's first."""
    fds = ((name, get_pinned(Path(globals_dir(node), name))) for name in CT_MAPS)
    return [stack.enter_context(BpfMap(fd, name=name)) for name, fd in fds if fd is not None]


def _tracked(key: bytes, value: bytes, tables: Iterable[BpfMap]) -> bool:
    """Whether conntrack knows a translated flow now."""
    flow = Tuple4.unpack(key)
    ends = _nat_ends(flow, NatEntry.unpack(value))
    tuples = (
        Tuple4(daddr=a[0], sport=a[1], saddr=b[0], dport=b[1], nexthdr=flow.nexthdr, flags=flags)
        for a, b in (ends, ends[::-1])
        for flags in (TupleFlag.OUT, TupleFlag.IN)
    )
    return any(table.lookup(one.pack()) for one in tuples for table in tables)


End = tuple[IPv4Address, int]
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
    (a, a_port), (b, b_port) = _nat_ends(flow, entry)
    return _ends(a, a_port, b, b_port, flow.nexthdr) in live


def _nat_ends(flow: Tuple4, entry: NatEntry) -> tuple[End, End]:
    """Return the ends of a translated flow as conntrack has them, before translation."""
    if flow.flags & TupleFlag.IN:
        # an answer: towards the translated address, back to the original one
        return (flow.saddr, flow.sport), (entry.to_addr, entry.to_port)
    return (flow.saddr, flow.sport), (flow.daddr, flow.dport)
