"""What the datapath's programs cost: nanoseconds, instructions, and against full tables.

Run it alone on the machine: ``lab bench programs`` (root). One packet again and again in one
program and its tail calls, without devices; ratios within one run are worth reading. Nothing is
asserted.
"""

from __future__ import annotations

import functools
import itertools
import os
import statistics
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.layouts.attach import Hook
from lab.layouts.core import PolicyEntry, PolicyKey
from lab.plot.cost import Series
from tests.bench._stock import Stock
from tests.bench._turns import Progress, in_turns
from tests.datapath.scene import CLIENT, NEIGHBOUR, REMOTE, VIP, WORLD, Scene, tcp

ROUNDS = int(os.environ.get("LAB_BENCH_ROUNDS", "7"))
HOPS = 250
RUNS, RUNS_IN_TURN = 300, 80
SERVICES, FLOWS = "cilium_lb4_services_v2", "cilium_ct4_global"

TITLE = "One packet by number of {}"
TITLES = tuple(map(TITLE.format, ("services", "policy entries", "conntrack entries")))


@dataclass(frozen=True, slots=True)
class Program:
    """One packet through a hook and all its tail calls.

    Attributes:
        packet: from where to where.
        ns: least of several averages, the kernel's own loop (about 25 ns) in it.
        instructions: of all programs of the object, after the verifier removed what is off.
        verified: instructions the verifier looked at for them.
    """

    packet: str
    ns: int
    instructions: int
    verified: int

    def __str__(self) -> str:
        size = f"{self.instructions} instructions in its object, {self.verified} looked at"
        return f"{self.packet:28s} {self.ns:6d} ns   {size}"


@dataclass(frozen=True, slots=True)
class Table:
    """One packet beside more and more entries it is not looking for."""

    name: str
    series: Series

    def __str__(self) -> str:
        columns = (self.series.column(position) for position in range(len(self.series.sizes)))
        costs = [f"{statistics.median(column) * 1000:.0f}" for column in columns]
        row = "  ".join(f"{n}: {ns}" for n, ns in zip(self.series.sizes, costs, strict=True))
        return f"{self.name:18s} {row} ns   {self.series.slope}"


def programs() -> list[Program]:
    """Return what the programs cost that a packet passes at one hook, policy on."""
    found = []
    with Scene(enable_policy=True) as scene:
        for instance, number in (("bpf_lxc", 266), ("neighbour", 267)):
            for egress in (False, True):
                scene.allow(0, egress=egress, instance=instance)
            scene.selected(number, instance)
        request = tcp(CLIENT, NEIGHBOUR, flags="A", ttl=255)
        answer = tcp(CLIENT, NEIGHBOUR, sport=80, dport=41000, flags="A", ttl=255)
        scene.deliver(tcp(NEIGHBOUR, CLIENT, sport=41000, dport=80, flags="A"), sender=257)
        cases = {
            "pod -> pod here, request": (Hook.FROM_CONTAINER, request),
            "pod -> pod here, answer": (Hook.FROM_CONTAINER, answer),
            "pod -> tunnel": (Hook.FROM_CONTAINER, tcp(CLIENT, REMOTE, flags="A")),
            "pod -> stack": (Hook.FROM_CONTAINER, tcp(CLIENT, WORLD, flags="A")),
            "whoever delivers -> pod": (Hook.HANDLE_POLICY, tcp(REMOTE, CLIENT, flags="A")),
            "uplink -> stack": (Hook.FROM_NETDEV, tcp(WORLD, "172.30.0.1", flags="A")),
        }
        for name, (hook, packet) in cases.items():
            owner = "bpf_host" if hook is Hook.FROM_NETDEV else "bpf_lxc"
            loaded = scene._instances[owner].loaded.programs
            infos = [program.info() for program in loaded.values()]
            count = sum(info.xlated_bytes for info in infos) // 8
            seen = sum(info.verified_insns for info in infos)
            found.append(Program(name, nanoseconds(scene, hook, packet), count, seen))
    return found


def nanoseconds(scene: Scene, hook: Hook, packet: bytes, runs: int = RUNS) -> int:
    """Return the best of several averages, as the kernel measures them.

    Each average is of as many runs as a packet has hops to live: the same packet comes again.
    """
    scene.run(hook, packet)
    program = scene.program(hook)
    return min(program.test_run(packet, repeat=HOPS).duration_ns for _ in range(runs))


def tables(progress: Progress | None = None) -> Iterator[Table]:
    """Yield the cost of a packet against the number of entries it is not looking for.

    Each measurement is of a flow of its own: which other entries lie in the way of one flow's is
    luck, and the same luck for as long as it lasts.
    """
    roomy = MapSpec(MapType.LRU_HASH, 14, 56, 262_144, 0)
    growths = {
        "services": ((1, 10, 100, 1000, 10_000), add_services, VIP, SERVICES),
        "policy entries": ((10, 100, 1000, 16_000), add_policy, REMOTE, "cilium_policy"),
        "conntrack entries": ((1000, 10_000, 50_000, 100_000), add_flows, REMOTE, FLOWS),
    }
    for name, (sizes, grow, receiver, table) in growths.items():
        flows = BpfMap.create("ct_roomy", roomy)
        with Scene(enable_policy=True, substitutes={FLOWS: flows}) as scene:
            scene.allow(0, egress=True)
            scene.service(VIP, 80, [(REMOTE, 8080)], 1)
            grow(scene, 0, sizes[0])
            stock = Stock(scene.map(table).map)
            grow(scene, sizes[0], sizes[-1])
            scene.selected(266)
            stock.learn()
            ports = itertools.count(40_000)

            def at(size, sizes=sizes, scene=scene, stock=stock, ports=ports, receiver=receiver):
                stock.set_share((size - sizes[0]) / (sizes[-1] - sizes[0]))
                packet = tcp(CLIENT, receiver, sport=next(ports), flags="A")
                return nanoseconds(scene, Hook.FROM_CONTAINER, packet, RUNS_IN_TURN) / 1000

            found: dict[str, list[float]] = {}
            paths = {str(size): functools.partial(at, size) for size in sizes}
            in_turns(paths, 2 * ROUNDS, found, title=TITLE.format(name), progress=progress)
        yield Table(name, Series(name, sizes, tuple(zip(*found.values(), strict=True))))


def add_services(scene: Scene, start: int, stop: int) -> None:
    """Add services nobody asks for, one backend each."""
    for number in range(start + 2, stop + 1):
        address = str(IPv4Address("10.97.0.0") + number)
        scene.service(address, 80, [(REMOTE, 8080)], number)


def add_policy(scene: Scene, start: int, stop: int) -> None:
    """Allow identities nobody has."""
    entries = scene.map("cilium_policy").map
    value = PolicyEntry().pack()
    for number in range(start, stop - 1):
        key = PolicyKey(sec_label=1000 + number, egress_wild=1)
        entries.update(key.pack(), value)


def add_flows(scene: Scene, start: int, stop: int) -> None:
    """Fill conntrack with flows of other pods."""
    flows = scene.map(FLOWS).map
    keys = (struct.pack("<IIIBB", n, 7, n, 6, 0) for n in range(start, stop))
    flows.update_many([(key, bytes(56)) for key in keys])


def main() -> None:
    """Print both."""
    for one in (*programs(), *tables()):
        print(one)


if __name__ == "__main__":
    main()
