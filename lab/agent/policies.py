"""Compiled policy into the maps: policy maps, identities in ``cilium_lxc`` and the ipcache.

What is in a map is read from the map, never assumed: an agent that starts anew writes the
difference only, and counters of entries that stay go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab.kernel.bpfmap import BpfMap, get_pinned
from lab.layouts.core import EndpointKey, IpcacheKey
from lab.plan.datapath import endpoint_info, who_is_behind
from lab.plan.inventory import Inventory, PodFacts
from lab.plan.steps import globals_dir
from lab.policy.entries import UNSELECTED, EntryKey, pack_value, unpack_value, unselected


def policy_pin(node: str, endpoint_id: int) -> Path:
    """Return where an endpoint's policy map is pinned, as the keeper sees it."""
    return Path(globals_dir(node), f"cilium_policy_{endpoint_id:05d}")


def add_entries(pin: Path, wanted: Mapping[EntryKey, bool]) -> int:
    """Write the entries that are missing or say something else; return how many.

    Where the map has no room for the old and the new together, what the old allowed goes first:
    for a moment too little passes, never too much.

    Args:
        pin: of the policy map.
        wanted: key -> deny flag.

    Raises:
        KernelError: the map is not there or full.
    """
    with BpfMap.from_pin(pin) as policy:
        have = {key: unpack_value(value)[0] for key, value in policy.items()}
        keep = {key.pack() for key in wanted}
        # no room for old and new side by side: allowing entries go first, denying ones stay
        if len(keep | have.keys()) > policy.spec.max_entries:
            for key in [key for key, deny in have.items() if not deny and key not in keep]:
                policy.delete(key)
        missing = [
            (key.pack(), pack_value(deny, key))
            for key, deny in wanted.items()
            if have.get(key.pack()) is not deny
        ]
        policy.update_many(missing)
        return len(missing)


def remove_others(pin: Path, wanted: Mapping[EntryKey, bool]) -> int:
    """Delete the entries that are not wanted; return how many."""
    keep = {key.pack() for key in wanted}
    with BpfMap.from_pin(pin) as policy:
        return sum(policy.delete(key) for key in list(policy.keys()) if key not in keep)


def select(node: str, endpoint_id: int, wanted: Mapping[EntryKey, bool]) -> None:
    """Let every packet of the directions ask the policy map that a policy selects.

    Between writing a policy's entries and removing those that it does not have.
    """
    _write_unselected(node, endpoint_id, unselected(wanted), also=False)


def unselect(node: str, endpoint_id: int, wanted: Mapping[EntryKey, bool]) -> None:
    """Spare packets of allowed flows the policy map where no policy selects the endpoint.

    After the map says what is wanted and nothing else.
    """
    _write_unselected(node, endpoint_id, unselected(wanted), also=True)


def _write_unselected(node: str, endpoint_id: int, bits: int, *, also: bool) -> None:
    fd = get_pinned(Path(globals_dir(node), UNSELECTED))
    if fd is None:
        return
    key = endpoint_id.to_bytes(4, "little")
    with BpfMap(fd) as table:
        before = table.lookup(key) or bytes(4)
        after = (bits if also else bits & before[0]).to_bytes(4, "little")
        if after != before:
            table.update(key, after)


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
