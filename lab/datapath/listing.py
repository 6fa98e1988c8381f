"""What a node's maps hold, in the line formats of ``cilium bpf ... list``.

Each function takes entries of one kind of map and returns a `Listing`: rows for people, and the
entries themselves for programs. Tuples are printed the way the packets went, whatever order the
map keeps them in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from lab.datapath.events import Vocabulary
from lab.layouts import core, flows
from lab.layouts.flows import CtFlag, ServiceFlag, TupleFlag
from lab.layouts.records import Record

PROTOCOLS = {0: "ANY", 1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
DIRECTIONS = {1: "INGRESS", 2: "EGRESS", 3: "SERVICE"}
NOT_DROPPED = {
    0: "Success",
    2: "Invalid packet",
    3: "Interface",
    4: "Interface Decrypted",
    5: "LB, sock cgroup: No backend slot entry found",
    6: "LB, sock cgroup: No backend entry found",
    7: "LB, sock cgroup: Reverse entry update failed",
    8: "LB, sock cgroup: Reverse entry stale",
    9: "Fragmented packet",
    10: "Fragmented packet entry update failed",
    11: "Missed tail call to custom program",
    12: "Interface Decrypting",
    13: "Interface Encrypting",
    14: "LB: sock cgroup: Reverse entry delete succeeded",
    15: "MTU error message",
}
"""Texts of the reasons below 130, as the tools print them; C knows only their names."""

Labels = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Listing:
    """A table of one map.

    Attributes:
        headers: of the columns; empty for maps that are printed line by line.
        rows: one tuple of cells each.
        entries: what the rows were made of, key and value.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    entries: tuple[tuple[Record, Record], ...]


def lines(listing: Listing) -> list[str]:
    """Return a listing as text lines, columns aligned with at least three blanks between them."""
    # maps without headers are printed as cilium prints them: one line, which scripts cut at blanks
    table = [listing.headers, *listing.rows] if listing.headers else list(listing.rows)
    if not table:
        return []
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def protocol(number: int) -> str:
    """Return a protocol as cilium prints it."""
    return PROTOCOLS.get(number, str(number))


def clock_seconds() -> int:
    """Return the monotonic clock in seconds, the one that conntrack and NAT keep time in."""
    return int(time.clock_gettime(time.CLOCK_MONOTONIC))


def conntrack(
    entries: Iterable[tuple[flows.Tuple4, flows.CtEntry]], now_s: int | None = None
) -> Listing:
    """List conntrack entries: ``TCP OUT 10.0.0.1:35382 -> 10.0.0.2:80 expires=...``.

    Args:
        entries: of ``cilium_ct4_global`` and ``cilium_ct_any4_global``.
        now_s: monotonic clock; read if None.
    """
    now = clock_seconds() if now_s is None else now_s
    kept = tuple(sorted(entries, key=lambda item: item[0].pack()))
    return Listing((), tuple((_ct_line(key, entry, now),) for key, entry in kept), kept)


def flow_of(key: flows.Tuple4) -> str:
    """Return ``source:port -> destination:port`` of the packets a conntrack entry was made for."""
    if key.flags & TupleFlag.SERVICE:
        return f"{key.saddr}:{key.dport} -> {key.daddr}:{key.sport}"
    return f"{key.daddr}:{key.sport} -> {key.saddr}:{key.dport}"


def _ct_direction(flags: int) -> str:
    if flags & TupleFlag.SERVICE:
        return "SVC"
    direction = "IN" if flags & TupleFlag.IN else "OUT"
    return f"{direction} RELATED" if flags & TupleFlag.RELATED else direction


def _ct_line(key: flows.Tuple4, entry: flows.CtEntry, now: int) -> str:
    service = bool(key.flags & TupleFlag.SERVICE)
    names = " ".join(flag.name or "" for flag in CtFlag if entry.flags & flag)
    # the field that counts received bytes holds the backend's number in a service's entry
    counters = (
        f"BackendID={entry.rx_bytes}"
        if service
        else f"RxPackets={entry.rx_packets} RxBytes={entry.rx_bytes}"
    )
    return (
        f"{protocol(key.nexthdr)} {_ct_direction(key.flags)} {flow_of(key)} "
        f"expires={entry.lifetime} (remaining: {entry.lifetime - now} sec(s)) {counters} "
        f"RxFlagsSeen={entry.rx_flags_seen:#04x} LastRxReport={entry.last_rx_report} "
        f"TxPackets={entry.tx_packets} TxBytes={entry.tx_bytes} "
        f"TxFlagsSeen={entry.tx_flags_seen:#04x} LastTxReport={entry.last_tx_report} "
        f"Flags={entry.flags:#06x} [ {names} ] RevNAT={entry.rev_nat_index} "
        f"SourceSecurityID={entry.src_sec_id} IfIndex={entry.ifindex}"
    )


def nat(
    entries: Iterable[tuple[flows.Tuple4, flows.NatEntry]], now_s: int | None = None
) -> Listing:
    """List translations: ``TCP OUT 10.0.2.1:32768 -> 1.1.1.1:80 XLATE_SRC 192.168.1.1:44123 ...``.

    Args:
        entries: of ``cilium_snat_v4_external``; tuples are in packet order.
        now_s: monotonic clock; read if None.
    """
    now = clock_seconds() if now_s is None else now_s
    kept = tuple(sorted(entries, key=lambda item: item[0].pack()))

    def line(key: flows.Tuple4, entry: flows.NatEntry) -> str:
        incoming = bool(key.flags & TupleFlag.IN)
        return (
            f"{protocol(key.nexthdr)} {'IN' if incoming else 'OUT'} "
            f"{key.saddr}:{key.sport} -> {key.daddr}:{key.dport} "
            f"{'XLATE_DST' if incoming else 'XLATE_SRC'} {entry.to_addr}:{entry.to_port} "
            f"Created={now - entry.created}sec ago NeedsCT={entry.needs_ct}"
        )

    return Listing((), tuple((line(key, entry),) for key, entry in kept), kept)


def ipcache(entries: Iterable[tuple[core.IpcacheKey, core.RemoteEndpointInfo]]) -> Listing:
    """List who is behind each prefix: identity and tunnel endpoint."""
    kept = tuple(sorted(entries, key=lambda item: (item[0].ip4, item[0].prefixlen)))
    rows = tuple(
        (
            str(key.network),
            f"identity={info.sec_identity} encryptkey={info.key} "
            f"tunnelendpoint={info.tunnel_endpoint} flags={info.flags or '<none>'}",
        )
        for key, info in kept
    )
    return Listing(("IP PREFIX/ADDRESS", "IDENTITY"), rows, kept)


def endpoints(entries: Iterable[tuple[core.EndpointKey, core.EndpointInfo]]) -> Listing:
    """List the addresses a node delivers to."""
    kept = tuple(sorted(entries, key=lambda item: item[0].ip4))

    def info(value: core.EndpointInfo) -> str:
        if value.flags & core.ENDPOINT_F_HOST:
            return "(localhost)"
        return (
            f"id={value.lxc_id:<5} sec_id={value.sec_id:<5} flags={value.flags:#06x} "
            f"ifindex={value.ifindex:<3} mac={value.mac} nodemac={value.node_mac} "
            f"parent_ifindex={value.parent_ifindex}"
        )

    rows = tuple((f"{key.ip4}:{key.cluster_id}", info(value)) for key, value in kept)
    return Listing(("IP ADDRESS", "LOCAL ENDPOINT INFO"), rows, kept)


def tunnels(entries: Iterable[tuple[core.TunnelKey, core.TunnelValue]]) -> Listing:
    """List which node each pod CIDR is behind."""
    kept = tuple(sorted(entries, key=lambda item: item[0].ip4))
    rows = tuple((f"{key.ip4}:{key.cluster_id}", f"{value.ip4}:{value.key}") for key, value in kept)
    return Listing(("TUNNEL", "VALUE"), rows, kept)


def metrics(
    entries: Iterable[tuple[core.MetricsKey, core.MetricsValue]], names: Vocabulary
) -> Listing:
    """List what was counted, summed over the CPUs."""
    kept = tuple(sorted(entries, key=lambda item: (item[0].reason, item[0].dir)))

    def text(reason: int) -> str:
        return NOT_DROPPED.get(reason) or names.reason_text(reason)

    rows = tuple(
        (
            text(key.reason),
            DIRECTIONS.get(key.dir, str(key.dir)),
            str(value.count),
            str(value.bytes),
        )
        for key, value in kept
    )
    return Listing(("REASON", "DIRECTION", "PACKETS", "BYTES"), rows, kept)


def policy(entries: Iterable[tuple[core.PolicyKey, core.PolicyEntry]], labels: Labels) -> Listing:
    """List an endpoint's policy.

    Args:
        entries: of its ``cilium_policy_NNNNN``.
        labels: an identity's labels as one text.
    """
    kept = tuple(
        sorted(entries, key=lambda item: (item[0].egress, item[0].sec_label, item[0].dport))
    )
    rows = tuple(
        (
            "Deny" if entry.deny else "Allow",
            "Egress" if key.egress else "Ingress",
            labels(key.sec_label),
            port_range(key),
            str(entry.proxy_port) if entry.proxy_port else "NONE",
            "disabled" if not entry.auth_type else str(entry.auth_type),
            str(entry.bytes),
            str(entry.packets),
            str(key.compared_bits),
        )
        for key, entry in kept
    )
    headers = (
        "POLICY",
        "DIRECTION",
        "LABELS (source:key[=value])",
        "PORT/PROTO",
        "PROXY PORT",
        "AUTH TYPE",
        "BYTES",
        "PACKETS",
        "PREFIX",
    )
    return Listing(headers, rows, kept)


def port_range(key: core.PolicyKey) -> str:
    """Return the ports a policy key stands for: ``ANY``, ``80/TCP`` or ``1024-2047/TCP``."""
    if not key.protocol:
        return "ANY"
    if key.wild_bits == 16:
        return f"ANY/{protocol(key.protocol)}"
    last = key.dport + (1 << key.wild_bits) - 1
    ports = str(key.dport) if last == key.dport else f"{key.dport}-{last}"
    return f"{ports}/{protocol(key.protocol)}"


def services(
    entries: Iterable[tuple[flows.ServiceKey, flows.Service]],
    backends: Mapping[int, flows.Backend],
) -> Listing:
    """List services, a master row and one row per backend slot each.

    Args:
        entries: of ``cilium_lb4_services_v2``.
        backends: of ``cilium_lb4_backends``, by id.
    """
    kept = tuple(
        sorted(entries, key=lambda e: (e[0].address, e[0].dport, e[0].scope, e[0].backend_slot))
    )

    def backend(key: flows.ServiceKey, value: flows.Service) -> str:
        # the master row stands for the service itself: no backend, but the flags
        if key.backend_slot == 0:
            return f"0.0.0.0:0 ({value.rev_nat_index}) (0) [{service_flags(value.all_flags)}]"
        found = backends.get(value.backend_id)
        where = f"{found.address}:{found.port}/{protocol(found.proto)}" if found else "backend gone"
        return f"{where} ({value.rev_nat_index}) ({key.backend_slot})"

    rows = tuple((service_name(key), backend(key, value)) for key, value in kept)
    return Listing(("SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)"), rows, kept)


def service_name(key: flows.ServiceKey) -> str:
    """Return ``ip:port/PROTO[/i] (slot)``; ``/i`` marks a row for traffic from inside."""
    scope = "/i" if key.scope else ""
    return f"{key.address}:{key.dport}/{protocol(key.proto)}{scope} ({key.backend_slot})"


def service_flags(flags: ServiceFlag) -> str:
    """Return a service's kind and properties in cilium's words."""
    kinds = (
        (ServiceFlag.EXTERNAL_IP, "ExternalIPs"),
        (ServiceFlag.NODEPORT, "NodePort"),
        (ServiceFlag.HOSTPORT, "HostPort"),
        (ServiceFlag.LOADBALANCER, "LoadBalancer"),
        (ServiceFlag.LOCALREDIRECT, "LocalRedirect"),
    )
    words = [next((word for flag, word in kinds if flags & flag), "ClusterIP")]
    properties = (
        (ServiceFlag.EXT_LOCAL_SCOPE, "Local"),
        (ServiceFlag.INT_LOCAL_SCOPE, "InternalLocal"),
        (ServiceFlag.TWO_SCOPES, "two-scopes"),
        (ServiceFlag.AFFINITY, "sessionAffinity"),
        (ServiceFlag.SOURCE_RANGE, "check source-range"),
        (ServiceFlag.FWD_MODE_DSR, "dsr"),
    )
    words += [word for flag, word in properties if flags & flag]
    if not flags & ServiceFlag.ROUTABLE:
        words.append("non-routable")
    return ", ".join(words)


def backends(entries: Iterable[tuple[flows.BackendKey, flows.Backend]]) -> Listing:
    """List the backends of all services by id."""
    kept = tuple(sorted(entries, key=lambda item: item[0].id))
    states = {0: "active", 1: "terminating", 2: "quarantined", 3: "maintenance"}
    rows = tuple(
        (
            str(key.id),
            f"{value.address}:{value.port}/{protocol(value.proto)}",
            states.get(value.flags, str(value.flags)),
        )
        for key, value in kept
    )
    return Listing(("ID", "BACKEND ADDRESS", "STATE"), rows, kept)


def reverse_nat(entries: Iterable[tuple[flows.RevNatKey, flows.ReverseNat]]) -> Listing:
    """List the address each service's answers get back."""
    kept = tuple(sorted(entries, key=lambda item: item[0].index))
    rows = tuple((str(key.index), f"{value.address}:{value.port}") for key, value in kept)
    return Listing(("ID", "SERVICE ADDRESS (REVNAT_ID)"), rows, kept)


def source_ranges(entries: Iterable[tuple[flows.SourceRangeKey, core.Flag]]) -> Listing:
    """List the clients that services with source ranges let in."""
    kept = tuple(sorted(entries, key=lambda item: (item[0].rev_nat_id, item[0].addr)))
    rows = tuple((str(key.rev_nat_id), str(key.network)) for key, _ in kept)
    return Listing(("REVNAT_ID", "SOURCE RANGE"), rows, kept)


def fragments(entries: Iterable[tuple[flows.FragKey, flows.FragPorts]]) -> Listing:
    """List the datagrams whose first fragment was seen."""
    kept = tuple(sorted(entries, key=lambda item: item[0].pack()))
    rows = tuple(
        (
            str(key.id),
            protocol(key.proto),
            f"{key.saddr}:{value.sport}",
            f"{key.daddr}:{value.dport}",
        )
        for key, value in kept
    )
    return Listing(("ID", "PROTO", "SOURCE ADDRESS:PORT", "DEST ADDRESS:PORT"), rows, kept)


def prefixes(entries: Iterable[tuple[core.CidrKey, core.Flag]]) -> Listing:
    """List a set of prefixes."""
    kept = tuple(sorted(entries, key=lambda item: (item[0].addr, item[0].prefixlen)))
    return Listing(("IP PREFIX/ADDRESS",), tuple((str(key.network),) for key, _ in kept), kept)


def neighbours(entries: Iterable[tuple[flows.Address4, flows.Mac]]) -> Listing:
    """List the MAC address learnt for each client of a NodePort."""
    kept = tuple(sorted(entries, key=lambda item: item[0].ip4))
    rows = tuple((str(key.ip4), value.addr) for key, value in kept)
    return Listing(("IP ADDRESS", "MAC"), rows, kept)


def affinities(entries: Iterable[tuple[flows.AffinityKey, flows.AffinityValue]]) -> Listing:
    """List which backend a service's client had last, and when (monotonic clock, seconds)."""
    kept = tuple(sorted(entries, key=lambda item: item[0].pack()))
    rows = tuple(
        (
            str(key.client),
            str(key.rev_nat_id),
            str(value.backend_id),
            str(value.last_used),
        )
        for key, value in kept
    )
    return Listing(("CLIENT", "REVNAT_ID", "BACKEND ID", "LAST USED"), rows, kept)


def matching(
    entries: Iterable[tuple[core.IpcacheKey, core.RemoteEndpointInfo]], address: IPv4Address
) -> tuple[core.IpcacheKey, core.RemoteEndpointInfo] | None:
    """Return the entry of the longest prefix that an address is in, or None."""
    hits = [entry for entry in entries if address in entry[0].network]
    return max(hits, key=lambda entry: entry[0].prefixlen, default=None)
