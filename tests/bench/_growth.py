"""Cost against the number of services, policy entries and flows: a lab for each number.

All labs are up at once and measured in turns, each time in another order: what the machine does
meanwhile, and what earlier rounds left behind, tells nothing about the number.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from lab import Lab, Options, Service, ServicePort
from lab.datapath.maps import open_view
from lab.layouts.flows import CtEntry, Tuple4
from lab.plot.cost import Series
from lab.policy.objects import NetworkPolicy, NetworkRule, Peer, Port, Selector
from tests.bench._measure import (
    PLAIN,
    PORT,
    ROUNDS,
    Measure,
    in_turns,
    lab_with,
    opening,
    series,
    trips,
)

SERVICES = (1, 100, 1000, 10_000)
POLICY_ENTRIES = (10, 100, 1000, 10_000, 16_000)
CONNTRACK_ENTRIES = (1000, 10_000, 30_000, 100_000)
ROOM = 131_072
"""Flows that fit a node's table when a hundred thousand are in it."""
FAR_AWAY = 1 << 31
"""A life time in seconds of the monotonic clock that no collection reaches."""
OURS, IPTABLES, NFTABLES = "eBPF", "iptables", "nftables"


def _services(count: int) -> list[Service]:
    port = ServicePort(80, PORT)
    return [Service(name=f"s{n}", ports=(port,), backends=("web",)) for n in range(count)]


def _last_service(lab: Lab, kind: str, count: int) -> str:
    """Make so many services, return the last one's address."""
    wanted = _services(count)
    if kind != OURS:
        return str(lab.kube_proxy(kind, *wanted)[-1].address)
    lab.apply(*wanted)
    return str(lab.service(f"s{count - 1}").address)


def services() -> list[Series]:
    """New connections through the last of many services: ours, iptables, nftables."""
    paths: dict[str, Measure] = {}
    with ExitStack() as stack:
        for kind in (OURS, IPTABLES, NFTABLES):
            for count in SERVICES:
                lab = stack.enter_context(lab_with(Options() if kind == OURS else PLAIN))
                address = _last_service(lab, kind, count)
                paths[f"{kind} at {count}"] = partial(opening, lab, "web", address, 80)
        found = in_turns(paths, 2 * ROUNDS)
    return [series(found, kind) for kind in (OURS, IPTABLES, NFTABLES)]


def _allow(lab: Lab, count: int) -> None:
    # odd ports: no two of them make one prefix
    ports = (Port("TCP", PORT), *(Port("TCP", 2 * n + 1) for n in range(count - 3)))
    rule = NetworkRule((Peer(Selector.of(app="client")),), ports)
    lab.apply(NetworkPolicy(name="p", pod_selector=Selector.of(app="web"), ingress=(rule,)))


def _rules(kind: str, count: int) -> Iterator[str]:
    """Lines that let so many other ports through before the one that is asked."""
    ports = [2 * n + 1 for n in range(count)]
    if kind == IPTABLES:
        yield from ("*filter", ":FORWARD ACCEPT [0:0]")
        yield from (f"-A FORWARD -p tcp --dport {port} -j ACCEPT" for port in ports)
        yield "COMMIT"
        return
    yield from ("table ip bench {", " chain forward {", "  type filter hook forward priority 0;")
    yield from (f"  tcp dport {port} accept" for port in ports)
    yield from (" }", "}")


def _load_rules(lab: Lab, kind: str, count: int) -> None:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("\n".join(_rules(kind, count)) + "\n")
        file.flush()
        words = ["iptables-restore"] if kind == IPTABLES else ["nft", "-f"]
        lab.node("alpha").run([*words, file.name], check=True, timeout_s=300)


def policy() -> list[Series]:
    """Round trips through a policy map that gets fuller, beside as many rules of netfilter."""
    paths: dict[str, Measure] = {}
    with ExitStack() as stack:
        for kind in (OURS, IPTABLES, NFTABLES):
            for count in POLICY_ENTRIES:
                lab = stack.enter_context(lab_with(Options() if kind == OURS else PLAIN))
                if kind == OURS:
                    _allow(lab, count)
                else:
                    _load_rules(lab, kind, count)
                address = str(lab.pod("web").address)
                trip_count = 2000 if kind == OURS or count <= 1000 else 500
                paths[f"{kind} at {count}"] = partial(trips, lab, "web", address, PORT, trip_count)
        found = in_turns(paths, ROUNDS)
    return [series(found, kind) for kind in (OURS, IPTABLES, NFTABLES)]


def _fill_conntrack(lab: Lab, count: int) -> None:
    entry = CtEntry(lifetime=FAR_AWAY).pack()
    with open_view(Path(lab.node("alpha").pin()), "cilium_ct4_global") as table:
        keys = (Tuple4(dport=n % 65536, sport=1 + n // 65536, nexthdr=6) for n in range(count))
        table.map.update_many([(key.pack(), entry) for key in keys])


def conntrack() -> list[Series]:
    """Round trips beside more and more other flows."""
    paths: dict[str, Measure] = {}
    with ExitStack() as stack:
        for count in CONNTRACK_ENTRIES:
            lab = stack.enter_context(lab_with(Options(ct_tcp_max=ROOM)))
            _fill_conntrack(lab, count)
            address = str(lab.pod("web").address)
            paths[f"{OURS} at {count}"] = partial(trips, lab, "web", address)
        found = in_turns(paths, 2 * ROUNDS)
    return [series(found, OURS)]
