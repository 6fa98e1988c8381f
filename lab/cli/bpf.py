"""``lab bpf``: what the datapath's maps hold, node by node, in cilium's line formats."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.chosen import LabOption, NodeOption, running
from lab.cli.output import Format, OutputOption, print_json
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.datapath.listing import Listing
    from lab.layouts.records import Record
    from lab.plan.inventory import NodeFacts, PodFacts
    from lab.runtime import Lab

app = typer.Typer(no_args_is_help=True, add_completion=False)
_GROUPS = {
    "ct": "Conntrack: the flows the datapath remembers.",
    "nat": "Translations of source addresses.",
    "lb": "Services and their backends.",
    "ipcache": "Identity and node behind each address.",
    "policy": "What each endpoint may send and receive.",
    "endpoint": "Addresses a node delivers to.",
    "tunnel": "Nodes behind the tunnel.",
    "metrics": "Packets and bytes by reason.",
    "affinity": "Clients that keep their backend.",
    "frag": "Datagrams in fragments.",
    "ipmasq": "Destinations that are not masqueraded.",
    "neigh": "Clients of NodePorts.",
    "prefilter": "Sources that XDP turns away.",
}
_apps = {name: typer.Typer(help=text, no_args_is_help=True) for name, text in _GROUPS.items()}
for _name, _app in _apps.items():
    app.add_typer(_app, name=_name)


@dataclass(frozen=True, slots=True)
class _Node:
    """A node to be listed: its facts and where its pins are."""

    facts: NodeFacts
    bpffs: Path


def find_pod(lab: Lab, word: str) -> PodFacts:
    """Return the pod with this name or endpoint id.

    Raises:
        InputError: there is none; the hint lists them.
    """
    for pod in lab.facts.pods:
        if word in (pod.name, str(pod.endpoint_id)):
            return pod
    known = ", ".join(f"{pod.endpoint_id} ({pod.name})" for pod in lab.facts.pods)
    raise InputError(f"no endpoint {word!r} in lab {lab.name!r}", hint=known)


def _nodes(lab: Lab, only: str) -> list[_Node]:
    facts = [lab.facts.node(only)] if only else list(lab.facts.nodes)
    return [_Node(node, Path(lab.node(node.name).pin())) for node in facts]


def _read(node: _Node, *names: str) -> list[tuple[Any, Any]]:
    """All entries of one or more maps of a node, one after the other."""
    from lab.datapath.maps import open_view

    found: list[tuple[Any, Any]] = []
    for name in names:
        with open_view(node.bpffs, name) as view:
            found += view.items()
    return found


def _plain(record: Record) -> dict[str, object]:
    """A structure as JSON prints it: its fields without padding."""
    hidden = {place.name for place in record.places() if place.is_padding}
    names = [field.name for field in dataclasses.fields(record)]  # type: ignore[arg-type]
    return {name: getattr(record, name) for name in names if name not in hidden}


def _show(
    lab_name: str, node_name: str, output: Format, listed: Callable[[Lab, _Node], Listing]
) -> None:
    """Print one listing per node, or all as one JSON list of ``{node, key, value, text}``."""
    with running(lab_name) as lab:
        nodes = _nodes(lab, node_name)
        found = [
            _Part(f"node {n.facts.name}", {"node": n.facts.name}, listed(lab, n)) for n in nodes
        ]
    _print(found, output)


@dataclass(frozen=True, slots=True)
class _Part:
    """One map's listing among several: how it is headed, and what its JSON rows begin with."""

    title: str
    where: dict[str, object]
    listing: Listing


def _print(parts: list[_Part], output: Format) -> None:
    from lab.datapath.listing import lines

    if output is Format.JSON:
        print_json(
            [
                {**part.where, "key": _plain(key), "value": _plain(value), "text": " ".join(row)}
                for part in parts
                for row, (key, value) in zip(part.listing.rows, part.listing.entries, strict=True)
            ]
        )
        return
    for number, part in enumerate(parts):
        if len(parts) > 1:
            typer.echo(("\n" if number else "") + f"# {part.title}")
        for line in lines(part.listing):
            typer.echo(line)


def _show_map(
    lab: str, node: str, output: Format, name: str, make: Callable[[list[tuple[Any, Any]]], Listing]
) -> None:
    _show(lab, node, output, lambda _, where: make(_read(where, name)))


@app.command("maps")
def maps_command(
    name: Annotated[str, typer.Argument(help="Name of the lab.")] = "",
    lab: LabOption = "",
    node: NodeOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """List every map that is pinned on the nodes, with type, sizes and entries."""
    from lab.datapath.maps import pinned_maps

    with running(name or lab) as live:
        found = [(where, pinned_maps(where.bpffs)) for where in _nodes(live, node)]
    if output is Format.JSON:
        print_json(
            [
                {"node": where.facts.name, **dataclasses.asdict(one)}
                for where, maps in found
                for one in maps
            ]
        )
        return
    from lab.datapath.listing import Listing, lines

    headers = ("NODE", "MAP", "ID", "TYPE", "KEY", "VALUE", "MAX", "ENTRIES", "EVICTED", "NOTE")
    rows = tuple(
        (
            where.facts.name,
            one.name,
            str(one.id),
            one.type,
            str(one.key_bytes),
            str(one.value_bytes),
            str(one.max_entries),
            "-" if one.entries is None else str(one.entries),
            "-" if one.evicted is None else str(one.evicted),
            f"unused: {one.unused}" if one.unused else "",
        )
        for where, maps in found
        for one in maps
    )
    for line in lines(Listing(headers, rows, ())):
        typer.echo(line)


@app.command("dump")
def dump_command(
    name: Annotated[str, typer.Argument(help="Name of the map, e.g. cilium_ipcache")],
    lab: LabOption = "",
    node: NodeOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Print every entry of any pinned map, field by field."""
    from lab.datapath.listing import Listing

    def make(entries: list[tuple[Any, Any]]) -> Listing:
        rows = tuple((_words(key), _words(value)) for key, value in entries)
        return Listing(("KEY", "VALUE"), rows, tuple(entries))

    _show_map(lab, node, output, name, make)


def _words(record: Record) -> str:
    return " ".join(f"{name}={value}" for name, value in _plain(record).items())


@_apps["ct"].command("list")
def ct_list(
    scope: Annotated[str, typer.Argument(help="Only `global` exists.")] = "global",
    lab: LabOption = "",
    node: NodeOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """List conntrack entries the way their packets went."""
    from lab.datapath import listing

    if scope != "global":
        raise InputError(f"no conntrack table {scope!r}", hint="lab bpf ct list global")
    # `global` is both: TCP has a map of its own, everything else the other
    names = ("cilium_ct4_global", "cilium_ct_any4_global")
    _show(lab, node, output, lambda _, where: listing.conntrack(_read(where, *names)))


@_apps["lb"].command("list")
def lb_list(
    lab: LabOption = "",
    node: NodeOption = "",
    output: OutputOption = Format.TABLE,
    backends: Annotated[bool, typer.Option("--backends", help="List backends by id.")] = False,
    revnat: Annotated[bool, typer.Option("--revnat", help="List reverse translations.")] = False,
    ranges: Annotated[
        bool, typer.Option("--source-ranges", help="List clients that are let in.")
    ] = False,
) -> None:
    """List services with their backends."""
    from lab.datapath import listing

    if backends:
        _show_map(lab, node, output, "cilium_lb4_backends", listing.backends)
        return
    if revnat:
        _show_map(lab, node, output, "cilium_lb4_reverse_nat", listing.reverse_nat)
        return
    if ranges:
        _show_map(lab, node, output, "cilium_lb4_source_range", listing.source_ranges)
        return

    def services(_: Lab, where: _Node) -> Listing:
        known = {key.id: value for key, value in _read(where, "cilium_lb4_backends")}
        return listing.services(_read(where, "cilium_lb4_services_v2"), known)

    _show(lab, node, output, services)


@_apps["ipcache"].command("get")
def ipcache_get(
    address: Annotated[str, typer.Argument(help="IPv4 address")],
    lab: LabOption = "",
    node: NodeOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show which entry the datapath finds for an address."""
    from lab.datapath import listing

    try:
        wanted = IPv4Address(address)
    except ValueError:
        raise InputError(f"{address!r} is no IPv4 address", hint="for example 10.0.1.10") from None

    def one(_: Lab, where: _Node) -> Listing:
        hit = listing.matching(_read(where, "cilium_ipcache"), wanted)
        return listing.ipcache([hit] if hit else [])

    _show(lab, node, output, one)


@_apps["policy"].command("get")
def policy_get(
    endpoint: Annotated[
        str, typer.Argument(help="Endpoint id or name of a pod; all of them without one.")
    ] = "",
    lab: LabOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """List the policy entries of one endpoint, or of all."""
    from lab.datapath import listing

    with running(lab) as live:
        pods = [find_pod(live, endpoint)] if endpoint else list(live.facts.pods)
        labels = _labels(live)
        parts = []
        for pod in pods:
            [node] = _nodes(live, pod.node)
            entries = _read(node, f"cilium_policy_{pod.endpoint_id:05d}")
            title = f"endpoint {pod.endpoint_id}, pod {pod.name} on {pod.node}"
            where: dict[str, object] = {"node": pod.node, "endpoint": pod.endpoint_id}
            parts.append(_Part(title, where, listing.policy(entries, labels)))
    _print(parts, output)


def _labels(lab: Lab) -> Callable[[int], str]:
    """What an identity's labels are in this lab."""
    from lab.names import RESERVED_IDENTITIES

    reserved = {number: f"reserved:{name}" for name, number in RESERVED_IDENTITIES.items()}
    allocated = {number: " ".join(labels) for labels, number in lab.facts.identities.items()}
    # in a policy's key 0 means everybody, elsewhere nobody known
    known = {**reserved, **allocated, 0: "ANY"}
    return lambda identity: known.get(identity) or str(identity)


@_apps["metrics"].command("list")
def metrics_list(
    lab: LabOption = "", node: NodeOption = "", output: OutputOption = Format.TABLE
) -> None:
    """List packets and bytes by reason and direction, drops included."""
    from lab.datapath import events, listing

    names = events.vocabulary()
    _show_map(lab, node, output, "cilium_metrics", lambda found: listing.metrics(found, names))


def _register(group: str, names: tuple[str, ...], rows: str) -> None:
    """Make ``GROUP list`` print all entries of some maps by a function of lab.datapath.listing."""

    @_apps[group].command("list", help=_LISTED[group])
    def list_all(
        lab: LabOption = "", node: NodeOption = "", output: OutputOption = Format.TABLE
    ) -> None:
        from lab.datapath import listing

        make = getattr(listing, rows)
        _show(lab, node, output, lambda _, where: make(_read(where, *names)))


_LISTED = {
    "ipcache": "List identity and tunnel endpoint of every prefix.",
    "nat": "List source address translations, both directions.",
    "endpoint": "List the addresses each node delivers to.",
    "tunnel": "List which node each pod CIDR is behind.",
    "affinity": "List which backend each client of a service keeps.",
    "frag": "List datagrams whose first fragment was seen.",
    "ipmasq": "List destinations that are not masqueraded.",
    "neigh": "List the clients of NodePorts and their MAC addresses.",
    "prefilter": "List sources that XDP turns away.",
}
_register("ipcache", ("cilium_ipcache",), "ipcache")
_register("nat", ("cilium_snat_v4_external",), "nat")
_register("endpoint", ("cilium_lxc",), "endpoints")
_register("tunnel", ("cilium_tunnel_map",), "tunnels")
_register("affinity", ("cilium_lb4_affinity",), "affinities")
_register("frag", ("cilium_ipv4_frag_datagrams",), "fragments")
_register("ipmasq", ("cilium_ipmasq_v4",), "prefixes")
_register("neigh", ("cilium_nodeport_neigh4",), "neighbours")
_register("prefilter", ("cilium_cidr_v4_fix", "cilium_cidr_v4_dyn"), "prefixes")
