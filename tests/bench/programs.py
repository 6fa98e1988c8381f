"""What the datapath's programs cost: nanoseconds, instructions, and against full tables.

Run it alone on the machine: ``lab bench programs`` (root). One packet again and again in one
program and its tail calls, without devices; ratios within one run are worth reading. Nothing is
asserted.
"""

from __future__ import annotations

import os
import statistics
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.layouts.attach import Hook
from lab.layouts.core import PolicyEntry, PolicyKey
from tests.datapath.scene import CLIENT, NEIGHBOUR, REMOTE, VIP, WORLD, Scene, tcp

ROUNDS = int(os.environ.get("LAB_BENCH_ROUNDS", "7"))
REPEAT = 20_000
HOPS = 250


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
    """One packet beside more and more entries it is not looking for: (entries, ns), in order."""

    name: str
    points: tuple[tuple[int, int], ...]
    slope: str

    def __str__(self) -> str:
        row = "  ".join(f"{size}: {cost}" for size, cost in self.points)
        return f"{self.name:18s} {row} ns   {self.slope}"


def programs() -> list[Program]:
    """Return what the programs cost that a packet passes at one hook, policy on."""
    found = []
    with Scene(enable_policy=True) as scene:
        for instance in ("bpf_lxc", "neighbour"):
            for egress in (False, True):
                scene.allow(0, egress=egress, instance=instance)
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


def nanoseconds(scene: Scene, hook: Hook, packet: bytes) -> int:
    """Return the best of several averages, as the kernel measures them.

    Each average is of as many runs as a packet has hops to live: the same packet comes again.
    """
    scene.run(hook, packet)
    program = scene.program(hook)
    runs = ROUNDS * REPEAT // HOPS
    return min(program.test_run(packet, repeat=HOPS).duration_ns for _ in range(runs))


def slope(points: list[tuple[int, int]]) -> str:
    """Return the fitted cost of a thousand entries beside the spread around the fit, in ns."""
    xs, ys = [x / 1000 for x, _ in points], [float(y) for _, y in points]
    fit = statistics.linear_regression(xs, ys)
    rest = [y - fit.intercept - fit.slope * x for x, y in zip(xs, ys, strict=True)]
    width = 2 * statistics.pstdev(rest) / statistics.pstdev(xs) / len(xs) ** 0.5
    return f"{fit.slope:+.3f} ± {width:.3f} ns per 1000"


def tables() -> list[Table]:
    """Return the cost of a packet against the number of entries it is not looking for."""
    roomy = MapSpec(MapType.LRU_HASH, 14, 56, 262_144, 0)
    growths = {
        "services": ((1, 10, 100, 1000, 10_000), add_services, tcp(CLIENT, VIP, flags="A")),
        "policy entries": ((10, 100, 1000, 16_000), add_policy, tcp(CLIENT, REMOTE, flags="A")),
        "conntrack entries": (
            (1000, 10_000, 50_000, 100_000),
            add_flows,
            tcp(CLIENT, REMOTE, flags="A"),
        ),
    }
    found = []
    for name, (sizes, grow, packet) in growths.items():
        flows = BpfMap.create("ct_roomy", roomy)
        with Scene(enable_policy=True, substitutes={"cilium_ct4_global": flows}) as scene:
            scene.allow(0, egress=True)
            scene.service(VIP, 80, [(REMOTE, 8080)], 1)
            points, there = [], 0
            for size in sizes:
                grow(scene, there, size)
                there = size
                points.append((size, nanoseconds(scene, Hook.FROM_CONTAINER, packet)))
        found.append(Table(name, tuple(points), slope(points)))
    return found


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
        key = PolicyKey(prefixlen=40, sec_label=1000 + number, egress=1)
        entries.update(key.pack(), value)


def add_flows(scene: Scene, start: int, stop: int) -> None:
    """Fill conntrack with flows of other pods."""
    flows = scene.map("cilium_ct4_global").map
    keys = (struct.pack("<IIIBB", n, 7, n, 6, 0) for n in range(start, stop))
    flows.update_many([(key, bytes(56)) for key in keys])


def main() -> None:
    """Print both."""
    for one in (*programs(), *tables()):
        print(one)


if __name__ == "__main__":
    main()
