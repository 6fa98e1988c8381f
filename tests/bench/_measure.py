"""What the datapath benchmarks share: labs beside each other, and one figure of them."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lab import Lab, Options
from lab.kernel import process
from lab.plan import steps
from lab.plan.inventory import PodFacts
from lab.plot.cost import Bar, Series
from topologies.two_nodes import topology

ROUNDS = int(os.environ.get("LAB_BENCH_ROUNDS", "7"))
PORT = 9000
TRIPS = 4000
PLAIN = Options(datapath=False, endpoint_routes=True, routing="native")
FLOOR = Path(__file__).with_name("_floor.c")


def lab_with(options: Options) -> Lab:
    """Return a lab of two nodes with these options, not yet up."""
    return Lab(replace(topology, options=options))


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


def add_kernel_overlay(lab: Lab, *, netfilter: bool = False) -> str:
    """Join client and server by bridges and the kernel's own VXLAN; return server's address.

    Args:
        lab: without a datapath.
        netfilter: whether bridges ask netfilter about IP packets: Kubernetes wants that of them,
            for iptables to see services, and it costs more than the bridge itself.
    """
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
        asks = steps.SetSysctl(
            where=node,
            key="bridge.bridge-nf-call-iptables",
            value=str(int(netfilter)),
            if_there=not netfilter,
        )
        lab.keeper.ask(op="run", steps=[steps.to_json(step) for step in (pair, asks)])
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


def add_floor(lab: Lab, section: str) -> str:
    """Let empty programs carry what client and web send each other; return web's address.

    Args:
        lab: without a datapath.
        section: of ``_floor.c``: ``veth`` or ``peer``.
    """
    client, web = (pod for pod in lab.facts.pods if pod.name in ("client", "web"))
    for pod, other in ((client, web), (web, client)):
        _attach_floor(lab, pod.node, pod.lxc, section, other.lxc_index)
        _address_directly(lab, pod, other)
    return str(web.address)


def add_tunnel_floor(lab: Lab) -> str:
    """Let empty programs carry client's and server's packets through VXLAN; return its address."""
    client, server = (pod for pod in lab.facts.pods if pod.name in ("client", "server"))
    for pod, other in ((client, server), (server, client)):
        make = "ip link add fvx0 index 70 mtu 1450 type vxlan external dstport 4789"
        lab.node(pod.node).run(make.split(), check=True)
        lab.node(pod.node).run(["ip", "link", "set", "fvx0", "up"], check=True)
        remote = int(lab.node(other.node).address)
        _attach_floor(lab, pod.node, pod.lxc, "encap", 70, remote)
        _attach_floor(lab, pod.node, "fvx0", "peer", pod.lxc_index)
        _address_directly(lab, pod, other)
        lab.pod(pod.name).run(["ip", "link", "set", "eth0", "mtu", "1450"], check=True)
    return str(server.address)


def _attach_floor(
    lab: Lab, where: str, device: str, section: str, to: int, remote: int = 0
) -> None:
    node = lab.node(where)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/floor.o"
        build = f"clang -O2 -g -target bpf -I/usr/include/x86_64-linux-gnu -o {path}"
        numbers = [f"-DTO_IFINDEX={to}", f"-DREMOTE={remote:#x}"]
        process.run([*build.split(), *numbers, "-c", str(FLOOR)])
        node.run(["tc", "qdisc", "add", "dev", device, "clsact"], check=True)
        attach = f"tc filter add dev {device} ingress bpf da obj {path} sec {section}"
        node.run(attach.split(), check=True)


def _address_directly(lab: Lab, pod: PodFacts, other: PodFacts) -> None:
    # nothing rewrites the frame on its way: the sender must address it to the other pod
    router = lab.facts.node(pod.node).router
    neighbour = f"ip neigh replace {router} lladdr {other.mac} dev eth0"
    lab.pod(pod.name).run(neighbour.split(), check=True)


def trips(lab: Lab, server: str, address: str, port: int = PORT, count: int = TRIPS) -> float:
    """Return the median round trip in microseconds, both ends on CPU 0."""
    with lab.pod(server).mirror(PORT, cpu=0):
        return lab.pod("client").round_trips(address, port, count=count, cpu=0).p50_us


def opening(lab: Lab, server: str, address: str, port: int) -> float:
    """Return the median time in microseconds to open a connection, both ends on CPU 0."""
    with lab.pod(server).mirror(PORT, cpu=0):
        return lab.pod("client").connections(address, port, count=300, cpu=0).p50_us


def stream(lab: Lab, server: str, address: str) -> float:
    """Return Gbit/s of one stream, both ends on CPU 0: what its bytes cost on their way."""
    with lab.pod(server).mirror(PORT, cpu=0, sink=True):
        return lab.pod("client").throughput(address, PORT, seconds=0.1, cpu=0)


def stream_of_two(lab: Lab, server: str, address: str) -> float:
    """Return Gbit/s of one stream, the ends on CPU 0 and 1.

    Scatters by factors, whatever the way: the receiver's CPU, when it brings the sender an
    acknowledgement, also sends what that lets out, and what the sender's CPU sends next overtakes
    it. TCP takes that for loss.
    """
    with lab.pod(server).mirror(PORT, cpu=1, sink=True):
        return lab.pod("client").throughput(address, PORT, seconds=0.2, cpu=0)


def bars(
    found: Mapping[str, list[float]], goals: Mapping[str, float], *, at_least: bool = False
) -> tuple[Bar, ...]:
    """Return each path beside the first, round by round."""
    first = next(iter(found.values()))
    return tuple(
        Bar(
            name,
            tuple(value / base for value, base in zip(values, first, strict=True)),
            goals.get(name),
            at_least,
        )
        for name, values in found.items()
    )


def series(found: Mapping[str, list[float]], label: str) -> Series:
    """Return the paths named ``LABEL at SIZE`` as one series."""
    sizes = {name: int(name.rpartition(" ")[2]) for name in found if name.startswith(f"{label} at")}
    ordered = sorted(sizes, key=lambda name: sizes[name])
    rounds = tuple(zip(*(found[name] for name in ordered), strict=True))
    return Series(label, tuple(sizes[name] for name in ordered), rounds)


def spread(values: list[float] | tuple[float, ...]) -> str:
    """Return median and range as text."""
    return f"{statistics.median(values):8.2f} [{min(values):.2f} - {max(values):.2f}]"
