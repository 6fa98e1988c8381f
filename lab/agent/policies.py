"""Compiled policy into the maps: policy maps, identities in ``cilium_lxc`` and the ipcache.

What is in a map is read from the map, never assumed: an agent that starts anew writes the
difference only, and counters of entries that stay go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab.kernel.bpfmap import BpfMap, get_pinned
from lab.layouts.core import EndpointKey, IpcacheKey, PolicyAbsent
from lab.plan.datapath import endpoint_info, who_is_behind
from lab.plan.inventory import Inventory, PodFacts
from lab.plan.steps import globals_dir
from lab.policy.entries import ABSENT, EntryKey, absent, pack_value, unpack_value


def policy_pin(node: str, endpoint_id: int) -> Path:
    """Return where an endpoint's policy map is pinned, as the keeper sees it."""
    return Path(globals_dir(node), f"cilium_policy_{endpoint_id:05d}")


def absent_pin(node: str) -> Path:
    """Return where a node's ``cilium_policy_absent`` is pinned, as the keeper sees it."""
    return Path(globals_dir(node), ABSENT)


@dataclass(frozen=True, slots=True)
class Difference:
    """What writing a policy's entries changed, and what is left to do.

    Attributes:
        written: entries that were not there or said something else.
        stale: entries in the map that the policy does not have.
    """

    written: int
    stale: int


def begin(
    policy: Path, absents: Path, endpoint_id: int, wanted: Mapping[EntryKey, bool]
) -> Difference:
    """Add what an endpoint's policy has to what its map says; `finish` takes away the rest.

    In between the old and the new apply together, see `add_entries`. Where the one takes the
    place of the other (``written`` and ``stale``), let programs leave what they are in before
    `finish` (`lab.kernel.bpf.wait_for_readers`): one that has looked for the new too early must
    still find the old.

    Args:
        policy: pin of the policy map.
        absents: pin of the node's ``cilium_policy_absent``.
        endpoint_id: whose policy.
        wanted: key -> deny flag.

    Raises:
        KernelError: the map is not there or full.
    """
    following = absent(wanted)
    # a program that does not look for a class of entries finds none of it, were it a deny
    _write_absent(
        absents,
        endpoint_id,
        lambda old: PolicyAbsent(
            egress=old.egress & following.egress, ingress=old.ingress & following.ingress
        ),
    )
    return add_entries(policy, wanted)


def finish(policy: Path, absents: Path, endpoint_id: int, wanted: Mapping[EntryKey, bool]) -> int:
    """Delete what a policy does not have, then spare packets the look-ups for it.

    Returns:
        Entries deleted.
    """
    removed = remove_others(policy, wanted)
    _write_absent(absents, endpoint_id, lambda _: absent(wanted))
    return removed


def forget(pin: Path, endpoint_id: int) -> None:
    """Spare the next endpoint of this number nothing until its map is filled."""
    _write_absent(pin, endpoint_id, lambda _: PolicyAbsent())


def _write_absent(
    pin: Path, endpoint_id: int, following: Callable[[PolicyAbsent], PolicyAbsent]
) -> None:
    fd = get_pinned(pin)
    if fd is None:
        return
    key = endpoint_id.to_bytes(4, "little")
    with BpfMap(fd) as table:
        before = table.lookup(key) or PolicyAbsent().pack()
        after = following(PolicyAbsent.unpack(before)).pack()
        if after != before:
            table.update(key, after)


def add_entries(pin: Path, wanted: Mapping[EntryKey, bool]) -> Difference:
    """Write the entries that are missing or say something else.

    Between this and `remove_others` the old and the new apply together. What both allow passes all
    the time, and what both forbid never does: denies come before allows, and old allows that would
    hide a new deny of the same identity go in between. Where the map has no room for the old and
    the new together, what the old allowed goes first: for a moment too little passes, never too
    much.

    Args:
        pin: of the policy map.
        wanted: key -> deny flag.

    Raises:
        KernelError: the map is not there or full.
    """
    with BpfMap.from_pin(pin) as policy:
        have = {key: unpack_value(value)[0] for key, value in policy.items()}
        keep = {key.pack() for key in wanted}
        stale = have.keys() - keep
        if len(keep | have.keys()) > policy.spec.max_entries:
            stale -= {key for key in stale if not have[key] and policy.delete(key)}
        written = 0
        for deny in (True, False):
            missing = [
                (raw, pack_value(deny, key))
                for key, wants in wanted.items()
                if wants is deny and have.get(raw := key.pack()) is not deny
            ]
            policy.update_many(missing)
            written += len(missing)
            if deny and missing:
                denied = {key for key, wants in wanted.items() if wants}
                hiding = (key for key in stale if not have[key] and _is_below(key, denied))
                stale -= {key for key in hiding if policy.delete(key)}
        return Difference(written, len(stale))


def _is_below(raw: bytes, denied: Set[EntryKey]) -> bool:
    return any(wider in denied for wider in EntryKey.unpack(raw).parents())


def remove_others(pin: Path, wanted: Mapping[EntryKey, bool]) -> int:
    """Delete the entries that are not wanted, allows before denies; return how many."""
    keep = {key.pack() for key in wanted}
    with BpfMap.from_pin(pin) as policy:
        stale = [(unpack_value(value)[0], key) for key, value in policy.items() if key not in keep]
        return sum(policy.delete(key) for _, key in sorted(stale))


def ipcache_rows(
    facts: Inventory, node: str, identities: Mapping[str, int], networks: Mapping[str, int]
) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of the ipcache entries of pods and policies' networks on one node.

    Args:
        facts: of the lab.
        node: whose ipcache it is.
        identities: pod name -> identity.
        networks: CIDR -> identity.
    """
    tunnel = facts.topology.options.routing == "vxlan"
    for other in facts.nodes:
        via = other.address if tunnel and other.name != node else None
        for pod in other.pods:
            yield ipcache_row(IPv4Network(pod.address), identities[pod.name], via)
    for cidr, number in networks.items():
        yield ipcache_row(IPv4Network(cidr), number, None)


def ipcache_row(
    network: IPv4Network, identity: int, via: IPv4Address | None
) -> tuple[bytes, bytes]:
    """Return key and value of one ipcache entry."""
    return IpcacheKey.of(network).pack(), who_is_behind(identity, via).pack()


def network_key(cidr: str) -> bytes:
    """Return the ipcache key of a network."""
    return IpcacheKey.of(IPv4Network(cidr)).pack()


def write(node: str, name: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
    """Write those rows into a node's map that are missing or differ; return how many."""
    with BpfMap.from_pin(Path(globals_dir(node), name)) as table:
        changed = [(key, value) for key, value in rows if table.lookup(key) != value]
        table.update_many(changed)
        return len(changed)


def delete(node: str, name: str, keys: Iterable[bytes]) -> int:
    """Delete rows from a node's map; missing ones are fine; return how many there were."""
    with BpfMap.from_pin(Path(globals_dir(node), name)) as table:
        return sum(table.delete(key) for key in keys)


def endpoint_row(pod: PodFacts, identity: int) -> tuple[bytes, bytes]:
    """Return key and value of a pod's entry in ``cilium_lxc``."""
    return EndpointKey(ip4=pod.address).pack(), endpoint_info(pod, identity).pack()
