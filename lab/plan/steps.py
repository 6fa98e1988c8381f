"""The kinds of steps a plan consists of; each prints the command it stands for.

A step is data. :mod:`lab.engines` runs it in process; ``commands()`` gives the same effect as
lines for a shell, with ``ip netns`` names for namespaces and one bpffs per node under
``/run/nodes/NODE/bpf``.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any

from lab.names import MAIN_TABLE

NODES_DIR = "/run/nodes"
"""Where a lab's private mounts hold one directory per node: ``bpf`` and ``cilium``."""

AGENT_SOCKET = f"{NODES_DIR}/agent.sock"
"""Where the lab's agent listens, inside the lab's private mounts."""


def bpffs(node: str) -> str:
    """Return the directory of a node's own BPF file system inside the lab."""
    return f"{NODES_DIR}/{node}/bpf"


def globals_dir(node: str) -> str:
    """Return the directory that holds a node's pinned maps, as Cilium lays it out."""
    return f"{bpffs(node)}/tc/globals"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change of the kernel's state.

    Attributes:
        where: the network namespace it happens in.
    """

    where: str

    def commands(self) -> tuple[str, ...]:
        """Return the equivalent command lines."""
        raise NotImplementedError

    def _ip(self, *words: object) -> str:
        return shlex.join(["ip", "-n", self.where, *map(str, words)])


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNamespace(Step):
    """A network namespace with its loopback device up.

    Attributes:
        role: ``node`` (gets a BPF file system of its own), ``pod``, ``underlay`` or ``world``.
        node: the node a pod runs on; the node itself for a node; empty otherwise.
    """

    role: str
    node: str = ""

    def commands(self) -> tuple[str, ...]:
        """Return ``ip netns add`` and, for a node, the mount of its bpffs."""
        lines = [
            shlex.join(["ip", "netns", "add", self.where]),
            self._ip("link", "set", "lo", "up"),
        ]
        if self.role == "node":
            lines += [
                f"mkdir -p {bpffs(self.where)}",
                f"mount -t bpf bpf {bpffs(self.where)}",
                f"mkdir -p {globals_dir(self.where)}",
            ]
        return tuple(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSysctl(Step):
    """A sysctl of one network namespace has a value; ``key`` is below ``net.``.

    Attributes:
        if_there: the kernel may be built without it; then nothing happens.
    """

    key: str
    value: str
    if_there: bool = False

    def commands(self) -> tuple[str, ...]:
        """Return ``sysctl -qw`` inside the namespace."""
        # -e: a key that the kernel does not have is no error
        options = "-qew" if self.if_there else "-qw"
        setting = f"net.{self.key}={self.value}"
        return (shlex.join(["ip", "netns", "exec", self.where, "sysctl", options, setting]),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVeth(Step):
    """A veth pair: ``device`` here, ``peer`` in ``peer_where``; both still down."""

    device: str
    index: int
    mac: str
    peer_where: str
    peer: str
    peer_index: int
    peer_mac: str
    mtu: int

    def commands(self) -> tuple[str, ...]:
        """Return ``ip link add ... type veth peer ...``."""
        ends = ["link", "add", "name", self.device, "index", self.index, "address", self.mac]
        ends += ["mtu", self.mtu, "type", "veth", "peer", "name", self.peer]
        ends += ["index", self.peer_index, "address", self.peer_mac, "mtu", self.mtu]
        if self.peer_where != self.where:
            ends += ["netns", self.peer_where]
        return (self._ip(*ends),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddBridge(Step):
    """A bridge without spanning tree and multicast snooping, so that it adds no packets."""

    device: str
    index: int
    mac: str
    mtu: int

    def commands(self) -> tuple[str, ...]:
        """Return ``ip link add ... type bridge``."""
        head = ["link", "add", "name", self.device, "index", self.index, "address", self.mac]
        kind = ["type", "bridge", "stp_state", 0, "mcast_snooping", 0]
        return (self._ip(*head, "mtu", self.mtu, *kind),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVxlan(Step):
    """A VXLAN device in collect-metadata mode: programs choose peer and VNI per packet."""

    device: str
    index: int
    mac: str
    mtu: int
    port: int

    def commands(self) -> tuple[str, ...]:
        """Return ``ip link add ... type vxlan external``."""
        head = ["link", "add", "name", self.device, "index", self.index, "address", self.mac]
        kind = ["type", "vxlan", "external", "dstport", self.port, "nolearning"]
        return (self._ip(*head, "mtu", self.mtu, *kind),)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMaster(Step):
    """A device is a port of a bridge."""

    device: str
    master: str

    def commands(self) -> tuple[str, ...]:
        """Return ``ip link set ... master``."""
        return (self._ip("link", "set", self.device, "master", self.master),)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp(Step):
    """A device is up; with ``arp=False`` it never asks for neighbours."""

    device: str
    arp: bool = True

    def commands(self) -> tuple[str, ...]:
        """Return ``ip link set ... up``."""
        return (self._ip("link", "set", self.device, *([] if self.arp else ["arp", "off"]), "up"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAddress(Step):
    """A device has an IPv4 address, written ``10.0.1.10/32``."""

    device: str
    address: str
    scope: str = "global"

    def commands(self) -> tuple[str, ...]:
        """Return ``ip addr add``."""
        scope = [] if self.scope == "global" else ["scope", self.scope]
        return (self._ip("addr", "add", self.address, "dev", self.device, *scope),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRoute(Step):
    """A route; ``destination`` is a network, an address or ``default``."""

    destination: str
    device: str
    via: str = ""
    source: str = ""
    scope: str = ""
    mtu: int = 0
    table: int = MAIN_TABLE
    kind: str = "unicast"

    def commands(self) -> tuple[str, ...]:
        """Return ``ip route add``."""
        words: list[object] = ["route", "add"]
        words += [self.kind] if self.kind != "unicast" else []
        words.append(self.destination)
        words += ["via", self.via] if self.via else []
        words += ["dev", self.device]
        words += ["src", self.source] if self.source else []
        words += ["scope", self.scope] if self.scope else []
        words += ["mtu", self.mtu] if self.mtu else []
        words += ["table", self.table] if self.table != MAIN_TABLE else []
        # what pyroute2 writes into every route; ip's own default would be `boot`
        words += ["proto", "static"]
        return (self._ip(*words),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRule(Step):
    """A rule of the routing policy database."""

    priority: int
    table: int
    fwmark: int = 0
    fwmask: int = 0

    def commands(self) -> tuple[str, ...]:
        """Return ``ip rule add``."""
        mark = ["fwmark", f"{self.fwmark:#x}/{self.fwmask:#x}"] if self.fwmask else []
        return (self._ip("rule", "add", "pref", self.priority, *mark, "lookup", self.table),)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRule(Step):
    """No rule of that priority is left."""

    priority: int

    def commands(self) -> tuple[str, ...]:
        """Return ``ip rule del``."""
        return (self._ip("rule", "del", "pref", self.priority),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddFirewallRule(Step):
    """A rule of netfilter, as words of ``iptables``."""

    words: tuple[str, ...]

    def commands(self) -> tuple[str, ...]:
        """Return ``iptables`` inside the namespace."""
        return (shlex.join(["ip", "netns", "exec", self.where, *self.argv]),)

    @property
    def argv(self) -> tuple[str, ...]:
        """The command; it waits for others that change rules."""
        return ("iptables", "-w", *self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRate(Step):
    """A device sends at most ``rate_mbit`` Mbit/s (token bucket, 20 ms of queue)."""

    device: str
    rate_mbit: float

    def commands(self) -> tuple[str, ...]:
        """Return ``tc qdisc add ... tbf``."""
        words = ["tc", "-n", self.where, "qdisc", "add", "dev", self.device]
        words += ["root", "handle", "1:", "tbf"]
        words += ["rate", f"{self.rate_mbit}mbit", "burst", "32kb", "latency", "20ms"]
        return (shlex.join(words),)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeMaps(Step):
    """The maps that all programs of a node share exist and are pinned, still empty."""

    objects: tuple[str, ...]
    ct_tcp_max: int

    def commands(self) -> tuple[str, ...]:
        """Return a comment: which maps is written in the objects (`lab.datapath.render`)."""
        return (f"# {self.where}: the maps of {', '.join(self.objects)}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadObject(Step):
    """All programs of one object are verified and loaded for one device, not yet attached.

    Attributes:
        object: file below ``bpf/`` without ending, for example ``bpf_lxc``.
        instance: the device it is loaded for; names the directory of its pinned programs.
        pins: names in C and pinned names of the maps that only this load has.
        config: names and values of its load-time constants (addresses and MACs as text).
    """

    object: str
    instance: str
    pins: tuple[tuple[str, str], ...]
    config: tuple[tuple[str, Any], ...] = ()

    @property
    def pin_dir(self) -> str:
        """Directory for its pinned programs, where the command lines use pins."""
        return f"{bpffs(self.where)}/cilium/devices/{self.instance}"

    def commands(self) -> tuple[str, ...]:
        """Return a comment: maps and tail calls are in the object (`lab.datapath.render`)."""
        return (f"# {self.where}: load {self.object} for {self.instance}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish(Step):
    """Other programs can call this endpoint (``cilium_call_policy``), and its maps are pinned."""

    instance: str

    def commands(self) -> tuple[str, ...]:
        """Return nothing: the lines of `LoadObject` have pinned and filled them already."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachTc(Step):
    """A program runs at a device's tc hook (clsact, priority 1, handle 1, direct action).

    Attributes:
        tcx: without clsact, where the kernel can.
        direction: ``ingress`` or ``egress``, as the device sees it.
        instance: the loaded object it comes from.
        program: name of the C function.
    """

    device: str
    direction: str
    instance: str
    program: str
    tcx: bool = False

    def commands(self) -> tuple[str, ...]:
        """Return ``tc qdisc`` and ``tc filter`` lines, or bpftool's for tcx."""
        pin = f"{bpffs(self.where)}/cilium/devices/{self.instance}/{self.program}"
        if self.tcx:
            kind = f"tcx_{self.direction}"
            attach = ["bpftool", "net", "attach", kind, "pinned", pin, "dev", self.device]
            return (shlex.join(["ip", "netns", "exec", self.where, *attach]),)
        head = ["tc", "-n", self.where]
        target = [*head, "filter", "replace", "dev", self.device, self.direction]
        return (
            shlex.join([*head, "qdisc", "replace", "dev", self.device, "clsact"]),
            shlex.join([*target, "prio", "1", "handle", "1", "bpf", "da", "object-pinned", pin]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachXdp(Step):
    """A program runs at a device's XDP hook."""

    device: str
    instance: str
    program: str
    mode: str = "xdpdrv"

    def commands(self) -> tuple[str, ...]:
        """Return ``ip link set ... xdpdrv pinned``."""
        pin = f"{bpffs(self.where)}/cilium/devices/{self.instance}/{self.program}"
        return (self._ip("link", "set", "dev", self.device, self.mode, "pinned", pin),)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMap(Step):
    """A pinned map of a node has an entry.

    Attributes:
        key: bytes as hexadecimal digits; ``value`` alike.
        note: what the entry says, in words.
    """

    map: str
    key: str
    value: str
    note: str = ""

    def commands(self) -> tuple[str, ...]:
        """Return ``bpftool map update`` with the bytes of key and value."""
        pin = f"{globals_dir(self.where)}/{self.map}"
        key, value = bytes.fromhex(self.key).hex(" "), bytes.fromhex(self.value).hex(" ")
        return (f"bpftool map update pinned {pin} key hex {key} value hex {value}",)


Plan = tuple[Step, ...]


def to_json(step: Step) -> dict[str, Any]:
    """Return a step as JSON-ready data with its kind; :func:`from_json` reads it back."""
    return {"step": type(step).__name__, **asdict(step)}


def from_json(data: dict[str, Any]) -> Step:
    """Build a step from what :func:`to_json` returned."""
    values = dict(data)
    kind = {cls.__name__: cls for cls in Step.__subclasses__()}[values.pop("step")]
    # JSON knows lists only; steps hold tuples, so that they compare and hash
    for name in ("config", "pins"):
        if name in values:
            values[name] = tuple((field, item) for field, item in values[name])
    for name in ("objects", "words"):
        if name in values:
            values[name] = tuple(values[name])
    return kind(**values)
