"""What the datapath costs a packet: ratios, side by side in one run; nothing is asserted.

Run it alone on the machine: ``lab bench datapath`` (root). Client and server share one CPU for
round trips (no wake-up of another CPU in the figure) and have one each for throughput.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from lab import Lab, Options, Service, ServicePort
from lab.datapath.maps import open_view
from lab.layouts.flows import CtEntry, Tuple4
from lab.plan import steps
from lab.policy.objects import NetworkPolicy, NetworkRule, Peer, Port, Selector
from topologies.two_nodes import topology

ROUNDS = int(os.environ.get("LAB_BENCH_ROUNDS", "7"))
PORT = 9000
TRIPS = 4000
PLAIN = Options(datapath=False, endpoint_routes=True, routing="native")
SERVICES = (1, 100, 1000, 10_000)
POLICY_ENTRIES = (10, 100, 1000, 10_000, 16_000)
CONNTRACK_ENTRIES = (1000, 5000, 10_000, 30_000)
FAR_AWAY = 1 << 31
"""A life time in seconds of the monotonic clock that no collection reaches."""


def lab_with(options: Options) -> Lab:
    """Return a lab of two nodes with these options, not yet up."""
    return Lab(replace(topology, options=options))


def spread(values: Iterable[float]) -> str:
    """Return median and range as text."""
    found = sorted(values)
    return f"{statistics.median(found):8.2f} [{found[0]:.2f} - {found[-1]:.2f}]"


def add_bare_veth(lab: Lab) -> str:
    """Join client and web by a veth pair of their own; return web's address on it."""
    pair = steps.AddVeth(
        where="client",
        device="bare0",
        index=50,
        mac="02:00:c0:a8:09:01",
        peer_where="web",
        peer="bare0",
        peer_index=3,
        peer_mac="02:00:c0:a8:09:02",
        mtu=1500,
    )
    todo: list[steps.Step] = [pair]
    for number, name in enumerate(("client", "web"), 1):
        todo.append(steps.SetUp(where=name, device="bare0"))
        todo.append(steps.AddAddress(where=name, device="bare0", address=f"192.168.9.{number}/24"))
    lab.keeper.ask(op="run", steps=[steps.to_json(step) for step in todo])
    return "192.168.9.2"


def add_kernel_overlay(lab: Lab) -> str:
    """Join client and server by bridges and the kernel's own VXLAN; return server's address."""
    for number, (node, pod, other) in enumerate(
        (("alpha", "client", "beta"), ("beta", "server", "alpha")), 1
    ):
        pair = steps.AddVeth(
            where=node,
            device="kv0",
            index=60,
            mac=f"02:00:c0:a8:08:1{number}",
            peer_where=pod,
            peer="kv0",
            peer_index=3 + (pod == "client"),
            peer_mac=f"02:00:c0:a8:08:0{number}",
            mtu=1450,
        )
        lab.keeper.ask(op="run", steps=[steps.to_json(pair)])
        remote = str(lab.node(other).address)
        for words in (
            "ip link add kbr0 type bridge",
            f"ip link add kvx0 type vxlan id 42 dstport 4789 remote {remote} dev eth0",
            "ip link set kvx0 mtu 1450 master kbr0 up",
            "ip link set kv0 master kbr0 up",
            "ip link set kbr0 up",
        ):
            lab.node(node).run(words.split(), check=True)
        lab.pod(pod).run(["ip", "addr", "add", f"192.168.8.{number}/24", "dev", "kv0"], check=True)
        lab.pod(pod).run(["ip", "link", "set", "kv0", "up"], check=True)
    return "192.168.8.2"


def trips(lab: Lab, server: str, address: str, port: int = PORT) -> float:
    """Return the median round trip in microseconds, both ends on CPU 0."""
    with lab.pod(server).mirror(PORT, cpu=0):
        return lab.pod("client").round_trips(address, port, count=TRIPS, cpu=0).p50_us


def stream(lab: Lab, server: str, address: str) -> float:
    """Return Gbit/s of one stream, the ends on CPU 0 and 1."""
    with lab.pod(server).mirror(PORT, cpu=1, sink=True):
        return lab.pod("client").throughput(address, PORT, seconds=0.7, cpu=0)


def beside(title: str, unit: str, paths: dict[str, Callable[[], float]]) -> None:
    """Measure paths in turns and print each with its ratio to the first, round by round."""
    found: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(ROUNDS):
        for name, measure in paths.items():
            found[name].append(measure())
    print(f"\n{title}, {unit}")
    first = next(iter(found))
    for name, values in found.items():
        ratios = [value / base for value, base in zip(values, found[first], strict=True)]
        print(f"  {name:<32}{spread(values):<30} ratio {spread(ratios)}")


def compare_paths() -> None:
    """Pod to pod on one node and across nodes, beside what the kernel alone does."""
    port = ServicePort(80, PORT)
    with (
        lab_with(Options()) as ours,
        lab_with(Options(routing="native")) as native,
        lab_with(Options(routing="native", host_routing="bpf")) as short,
        lab_with(PLAIN) as plain,
    ):
        bare, overlay = add_bare_veth(plain), add_kernel_overlay(plain)
        ours.apply(Service(name="one", ports=(port,), backends=("web",)))
        service = ours.service("one").address
        web, server = str(ours.pod("web").address), str(ours.pod("server").address)
        near: dict[str, Callable[[], float]] = {
            "bare veth pair": lambda: trips(plain, "web", bare),
            "routed, no datapath": lambda: trips(plain, "web", web),
            "pod to pod": lambda: trips(ours, "web", web),
            "pod to pod, host routing": lambda: trips(short, "web", web),
        }
        beside("one node: round trip on one CPU", "us", near)
        through = {
            "direct": lambda: trips(ours, "web", web),
            "ClusterIP": lambda: trips(ours, "web", service, 80),
        }
        beside("a service: round trip on one CPU", "us", through)
        far: dict[str, Callable[[], float]] = {
            "kernel bridge and VXLAN": lambda: trips(plain, "server", overlay),
            "pod to pod, tunnel": lambda: trips(ours, "server", server),
            "pod to pod, native": lambda: trips(native, "server", server),
            "pod to pod, native, host routing": lambda: trips(short, "server", server),
        }
        beside("two nodes: round trip on one CPU", "us", far)
        same_mtu = {
            "bare veth pair": lambda: stream(plain, "web", bare),
            "pod to pod, host routing": lambda: stream(short, "web", web),
            "pod to pod, native lab": lambda: stream(native, "web", web),
        }
        beside("one node, MTU 1500: one stream", "Gbit/s", same_mtu)
        tunnels = {
            "kernel bridge and VXLAN": lambda: stream(plain, "server", overlay),
            "pod to pod, tunnel": lambda: stream(ours, "server", server),
        }
        beside("two nodes, MTU 1450: one stream", "Gbit/s", tunnels)


def slope(points: list[tuple[int, float]]) -> str:
    """Return the least-squares slope in ns per 1000, with its standard error."""
    xs, ys = [x / 1000 for x, _ in points], [y * 1000 for _, y in points]
    middle_x, middle_y = statistics.mean(xs), statistics.mean(ys)
    spread_x = sum((x - middle_x) ** 2 for x in xs)
    found = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / spread_x
    rest = [y - middle_y - found * (x - middle_x) for x, y in zip(xs, ys, strict=True)]
    error = (sum(value**2 for value in rest) / max(len(xs) - 2, 1) / spread_x) ** 0.5
    return f"slope {found:+.1f} ± {error:.1f} ns per 1000"


def growth(
    title: str,
    sizes: Iterable[int],
    prepare: Callable[[int], None],
    paths: dict[str, Callable[[], float]],
) -> None:
    """Measure paths at growing sizes and print medians and slopes."""
    points: dict[str, list[tuple[int, float]]] = {name: [] for name in paths}
    print(f"\n{title}, us")
    for size in sizes:
        prepare(size)
        for name, measure in paths.items():
            values = [measure() for _ in range(ROUNDS)]
            points[name] += [(size, value) for value in values]
            print(f"  {size:>6}  {name:<28}{spread(values)}")
    for name, found in points.items():
        print(f"  {name:<36}{slope(found)}")


def services(count: int) -> list[Service]:
    """Return so many services; the last one is the one that is asked."""
    port = ServicePort(80, PORT)
    return [Service(name=f"s{n}", ports=(port,), backends=("web",)) for n in range(count)]


def grow_services() -> None:
    """New connections through the last of many services: ours, iptables, nftables."""
    with lab_with(Options()) as ours, lab_with(PLAIN) as ipt, lab_with(PLAIN) as nft:
        asked: dict[str, str] = {}

        def prepare(count: int) -> None:
            wanted = services(count)
            ours.apply(*wanted)
            asked["ours"] = ours.service(f"s{count - 1}").address
            asked["iptables"] = ipt.kube_proxy("iptables", *wanted)[-1].address
            asked["nftables"] = nft.kube_proxy("nftables", *wanted)[-1].address

        def opening(lab: Lab, name: str) -> float:
            with lab.pod("web").mirror(PORT, cpu=0):
                return lab.pod("client").connections(asked[name], 80, count=400, cpu=0).p50_us

        growth(
            "opening a connection, by number of services",
            SERVICES,
            prepare,
            {
                "ours": lambda: opening(ours, "ours"),
                "kube-proxy's iptables": lambda: opening(ipt, "iptables"),
                "kube-proxy's nftables": lambda: opening(nft, "nftables"),
            },
        )


def grow_policy() -> None:
    """Round trips through a policy map that gets fuller."""
    client = Peer(Selector.of(app="client"))
    with lab_with(Options()) as lab:
        web = str(lab.pod("web").address)

        def prepare(count: int) -> None:
            # odd ports: no two of them make one prefix
            ports = (Port("TCP", PORT), *(Port("TCP", 2 * n + 1) for n in range(count - 3)))
            rule = NetworkRule((client,), ports)
            lab.apply(NetworkPolicy(name="p", pod_selector=Selector.of(app="web"), ingress=(rule,)))

        paths = {"ours": lambda: trips(lab, "web", web)}
        growth("round trip, by number of policy entries", POLICY_ENTRIES, prepare, paths)


def grow_conntrack() -> None:
    """Round trips beside more and more other flows."""
    with lab_with(Options()) as lab:
        web = str(lab.pod("web").address)

        def prepare(count: int) -> None:
            entry = CtEntry(lifetime=FAR_AWAY)
            with open_view(Path(lab.node("alpha").pin()), "cilium_ct4_global") as table:
                rows = (
                    (Tuple4(dport=n % 65536, sport=1 + n // 65536, nexthdr=6).pack(), entry.pack())
                    for n in range(count)
                )
                table.map.update_many(list(rows))

        paths = {"ours": lambda: trips(lab, "web", web)}
        growth("round trip, by number of conntrack entries", CONNTRACK_ENTRIES, prepare, paths)


PARTS = {
    "paths": compare_paths,
    "policy": grow_policy,
    "conntrack": grow_conntrack,
    "services": grow_services,
}


if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
