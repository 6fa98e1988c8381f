"""Cost against the number of services, policy entries and flows.

Ours is one lab, whose tables are filled and emptied to another size before each measurement: two
labs differ in more than their numbers of entries (where in memory their tables lie, which rows
share a chain), and what they differ in would look like a slope and not like chance. Which entries
are there is drawn anew each time. Netfilter's rules take too long to load for that: a lab for each
number.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from lab import Lab, Node, Options, Pod, Service, ServicePort, Topology
from lab.kernel.bpfmap import BpfMap
from lab.layouts.attach import GLOBALS
from lab.layouts.flows import CtEntry, Tuple4
from lab.policy.objects import NetworkPolicy, NetworkRule, Peer, Port, Selector
from tests.bench._measure import PLAIN, PORT, opening, trips
from tests.bench._stock import Stock
from tests.bench._turns import Measure

SERVICES = (1, 100, 1000, 10_000)
POLICY_ENTRIES = (10, 100, 1000, 10_000, 16_000)
CONNTRACK_ENTRIES = (1000, 10_000, 30_000, 100_000)
ROOM = 131_072
"""Flows that fit a node's table when a hundred thousand are in it."""
FAR_AWAY = 1 << 31
"""A life time in seconds of the monotonic clock that no collection reaches."""
OURS, IPTABLES, NFTABLES = "eBPF", "iptables", "nftables"


ONE_NODE = Topology(
    name="one-node",
    nodes=(Node("alpha"),),
    pods=(
        Pod("client", node="alpha", labels={"app": "client"}),
        Pod("web", node="alpha", labels={"app": "web"}),
    ),
)
Paths = dict[str, Measure]
"""Measurements under the names ``LABEL at SIZE``."""


@contextmanager
def _pinned(lab: Lab, *patterns: str) -> Iterator[Stock]:
    folder = Path(lab.node("alpha").pin()) / GLOBALS
    with ExitStack() as stack:
        paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
        yield Stock(*(stack.enter_context(BpfMap.from_pin(path)) for path in paths))


@contextmanager
def _filled(stock: Stock, sizes: Sequence[int], measure: Measure) -> Iterator[Paths]:
    """Measurements that set the tables to their size first; the largest is the whole stock."""

    def at(size: int) -> float:
        stock.set_share((size - sizes[0]) / (sizes[-1] - sizes[0]))
        return measure()

    yield {f"{OURS} at {size}": partial(at, size) for size in sizes}


def _one_node(options: Options) -> Lab:
    return Lab(replace(ONE_NODE, options=options))


def _services(count: int) -> list[Service]:
    port = ServicePort(80, PORT)
    return [Service(name=f"s{n}", ports=(port,), backends=("web",)) for n in range(count)]


@contextmanager
def services() -> Iterator[Paths]:
    """New connections through one of many services: ours, iptables' and nftables' last one."""
    with ExitStack() as stack:
        ours = stack.enter_context(_one_node(Options()))
        ours.apply(*_services(SERVICES[0]))
        stock = stack.enter_context(_pinned(ours, "cilium_lb4_*"))
        ours.apply(*_services(SERVICES[-1]))
        stock.learn()
        # the flows of earlier measurements must not fill the table of flows
        flows = stack.enter_context(_pinned(ours, "cilium_ct4_global"))
        address = str(ours.service("s0").address)

        def open_new() -> float:
            flows.learn()
            flows.set_share(0)
            return opening(ours, "web", address, 80)

        paths = stack.enter_context(_filled(stock, SERVICES, open_new))
        for kind in (IPTABLES, NFTABLES):
            for count in SERVICES:
                lab = stack.enter_context(_one_node(PLAIN))
                address_there = str(lab.kube_proxy(kind, *_services(count))[-1].address)
                paths[f"{kind} at {count}"] = partial(opening, lab, "web", address_there, 80)
        yield paths


def _allow(lab: Lab, count: int) -> None:
    # odd ports: no two of them make one block
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


@contextmanager
def policy() -> Iterator[Paths]:
    """Round trips through a policy map that gets fuller, beside as many rules of netfilter.

    A trip looks the policy up once, for the request at web's end: answers belong to their flow.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(_one_node(Options()))
        _allow(ours, POLICY_ENTRIES[0])
        stock = stack.enter_context(_pinned(ours, "cilium_policy_[0-9]*"))
        _allow(ours, POLICY_ENTRIES[-1])
        stock.learn()
        address = str(ours.pod("web").address)
        measure = partial(trips, ours, "web", address)
        paths = stack.enter_context(_filled(stock, POLICY_ENTRIES, measure))
        for kind in (IPTABLES, NFTABLES):
            for count in POLICY_ENTRIES:
                lab = stack.enter_context(_one_node(PLAIN))
                _load_rules(lab, kind, count)
                trip_count = 4000 if count <= 100 else 1000 if count <= 1000 else 200
                measure = partial(trips, lab, "web", address, PORT, trip_count)
                paths[f"{kind} at {count}"] = measure
        yield paths


@contextmanager
def conntrack() -> Iterator[Paths]:
    """Round trips beside more and more other flows; a trip looks for its own four times."""
    entry = CtEntry(lifetime=FAR_AWAY).pack()
    keys = (
        Tuple4(dport=n % 65536, sport=1 + n // 65536, nexthdr=6)
        for n in range(CONNTRACK_ENTRIES[-1])
    )
    flows = [(key.pack(), entry) for key in keys]
    least = CONNTRACK_ENTRIES[0]
    with _one_node(Options(ct_tcp_max=ROOM)) as lab:
        with lab.node("alpha").map("cilium_ct4_global") as table:
            table.map.update_many(flows[:least])
        with _pinned(lab, "cilium_ct4_global") as stock:
            stock.give(flows[least:])
            measure = partial(trips, lab, "web", str(lab.pod("web").address))
            with _filled(stock, CONNTRACK_ENTRIES, measure) as paths:
                yield paths
