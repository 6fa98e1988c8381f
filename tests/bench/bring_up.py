"""How long a lab takes to come up and go, and what it costs; medians, side by side in one run.

Run it alone on the machine: ``lab bench bring_up`` (root). Nothing is asserted: figures are read.
Mininet's figures are for the calls inside a running Python; the lines "without starting Python"
compare with them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from lab import Lab, Node, Options, Pod, Topology

ROUNDS = int(os.environ.get("LAB_BENCH_ROUNDS", "7"))

MININET = """
import time, sys
from mininet.net import Mininet
from mininet.node import Switch, Host
from mininet.log import setLogLevel
setLogLevel("error")
Mininet.inited = True  # keeps Mininet from rewriting the machine's sysctls
class Bridge(Switch):
    def start(self, controllers):
        self.cmd("ip link add br0 type bridge; ip link set br0 up")
        for name in self.intfNames():
            if name != "lo":
                self.cmd("ip link set", name, "master br0")
    def stop(self, deleteIntfs=True):
        super().stop(deleteIntfs)
count = int(sys.argv[1])
begun = time.perf_counter()
net = Mininet(topo=None, controller=None, switch=Bridge, build=False)
switch = net.addSwitch("s1", inNamespace=True, dpid="1")
for n in range(count):
    net.addLink(net.addHost(f"h{n}"), switch)
net.start()
built = time.perf_counter()
net.stop()
print(built - begun, time.perf_counter() - built)
"""


def topology(nodes: int, pods: int, *, datapath: bool) -> Topology:
    """Return a topology with its pods spread evenly over its nodes."""
    names = [f"n{n}" for n in range(nodes)]
    return Topology(
        name="bench",
        nodes=tuple(Node(name) for name in names),
        pods=tuple(Pod(f"p{n}", node=names[n % nodes]) for n in range(pods)),
        options=Options(datapath=datapath),
    )


def lab_once(described: Topology, *, plan_only: bool = False) -> tuple[float, float]:
    """Return seconds to come up (keeper start included, or the plan alone) and to go."""
    begun = time.perf_counter()
    lab = Lab(described).start()
    up = time.perf_counter()
    built = lab.keeper.seconds if plan_only else up - begun
    lab.stop()
    return built, time.perf_counter() - up


def mininet_once(hosts: int) -> tuple[float, float]:
    """Return seconds that Mininet takes to build and stop hosts on a Linux bridge."""
    inside = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    done = subprocess.run(
        [*inside, sys.executable, "-c", MININET, str(hosts)],
        capture_output=True,
        text=True,
        check=True,
    )
    built, stopped = done.stdout.split()
    return float(built), float(stopped)


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB (its own share of shared pages)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def memory_per_pod(pods: int) -> float:
    """Return what one pod more adds to the keeper's memory, in KiB."""
    sizes = []
    for count in (0, pods):
        with Lab(topology(2, count, datapath=True)) as lab:
            sizes.append(resident_kib(lab.keeper.record.pid))
    return (sizes[1] - sizes[0]) / pods


def show(what: str, rows: list[tuple[float, float]], budget: str) -> None:
    """Print medians and spread of (up, down)."""
    up, down = ([row[n] for row in rows] for n in (0, 1))
    print(
        f"{what:<44} up {statistics.median(up):6.3f} s [{min(up):.3f} - {max(up):.3f}]"
        f"   down {statistics.median(down):6.3f} s [{min(down):.3f} - {max(down):.3f}]   {budget}"
    )


def main() -> None:
    """Print the report."""
    whole, bare = topology(2, 4, datapath=True), topology(2, 4, datapath=False)
    many, many_bare = topology(2, 100, datapath=True), topology(2, 100, datapath=False)
    lab_once(whole)
    rounds: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        rounds.setdefault("2 nodes + 4 pods, datapath attached", []).append(lab_once(whole))
        rounds.setdefault("2 nodes + 4 pods, namespaces and links", []).append(lab_once(bare))
        rounds.setdefault("  the same, without starting Python", []).append(
            lab_once(bare, plan_only=True)
        )
        rounds.setdefault("Mininet, 6 hosts on a Linux bridge", []).append(mininet_once(6))
    for _ in range(max(3, ROUNDS // 2)):
        rounds.setdefault("2 nodes + 100 pods, datapath attached", []).append(lab_once(many))
        rounds.setdefault("2 nodes + 100 pods, namespaces and links", []).append(
            lab_once(many_bare)
        )
        rounds.setdefault("  the same, without starting Python, 100", []).append(
            lab_once(many_bare, plan_only=True)
        )
        rounds.setdefault("Mininet, 102 hosts on a Linux bridge", []).append(mininet_once(102))
    budgets = {
        "2 nodes + 4 pods, datapath attached": "budget 0.5 / 0.1",
        "2 nodes + 100 pods, datapath attached": "budget 3 s up",
    }
    for what, rows in rounds.items():
        show(what, rows, budgets.get(what, ""))
    where_the_time_goes(whole)
    print(
        f"memory: {memory_per_pod(50):.0f} KiB resident per pod beyond the kernel's own (of 1024)"
    )


def where_the_time_goes(described: Topology) -> None:
    """Print the parts of one bring-up: keeper start, plan by kind of step, verifier."""
    begun = time.perf_counter()
    lab = Lab(described).start()
    total = time.perf_counter() - begun
    answer, _ = lab.keeper.ask(op="timings")
    lab.stop()
    print(f"where {total * 1000:.0f} ms go (one run):")
    print(f"  {'starting the keeper':<28} {(total - lab_seconds(answer)) * 1000:7.1f} ms")
    for kind, (seconds, count) in sorted(answer["steps"].items(), key=lambda item: -item[1][0]):
        print(f"  {kind:<28} {seconds * 1000:7.1f} ms in {count} steps")
    for name, seconds in answer["load_seconds"].items():
        print(f"  loading {name:<20} {seconds * 1000:7.1f} ms (two at a time, in the background)")
    pods = [s for name, s in answer["load_seconds"].items() if "/lxc" in name]
    print(f"verifier budget: {statistics.median(pods) * 1000:.1f} ms per endpoint (budget 20)")


def lab_seconds(answer: dict[str, dict[str, tuple[float, int]]]) -> float:
    """Return the seconds all steps took together."""
    return sum(seconds for seconds, _ in answer["steps"].values())


if __name__ == "__main__":
    main()
