"""The tracer's part inside a lab: a child of the keeper that loads, attaches and reads probes.

It interprets nothing: raw records go to the caller, who assembles them. It pins nothing, so that
its end, however it comes, is the end of every probe.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import KernelError, LabError, VerifierError
from lab.kernel import tcx, tracing, vm
from lab.kernel.bpf import Loaded, Program, ProgramType, load_object
from lab.kernel.bpfattach import (
    AttachType,
    Direction,
    Link,
    attach_cgroup,
    attach_tracing,
    has_tcx,
    query_xdp,
)
from lab.kernel.bpfmap import BpfMap
from lab.kernel.btf import read_object
from lab.kernel.lanes import Lanes
from lab.kernel.netns import NetworkNamespace
from lab.kernel.tcfilters import tc_filters
from lab.layouts.core import Index, RuntimeSlot, Word
from lab.observe import ipsec
from lab.observe.nfevents import NetfilterEar
from lab.observe.programs import Probe, Where, usable
from lab.observe.records import LIGHT_BYTES, MIND_BYTES, RECORD_BYTES
from lab.plan.steps import globals_dir
from lab.runtime.messages import receive, send

if TYPE_CHECKING:
    from lab.runtime.keeper import Context

FEW_BYTES, MANY_BYTES = 16 << 20, 64 << 20
"""Room for records that nobody has fetched: with stacks, and of a light trace of many packets."""
# max_entries of cilium_mind (bpf/lib/mind.h)
MIND_RING_BYTES = 256 << 10
MIND_BY_TAIL = 1 << 32
# enum filter_mode of bpf/probes/filter.h
MODE_COOKIE, MODE_TUPLE = 1, 2
POLL_S, BUSY_POLL_S = 0.01, 0.001
BUSY_BYTES = 256 << 10
"""As much as this at once: more comes than a slow reader would find room for."""
EMULATED_RECENT_NS = 100_000_000
"""What a millisecond is in software emulation, with neighbours: between two hooks of a packet."""
EMULATED_LINGER = 10
MOST_BYTES = 512 << 20
# trace_filter of bpf/probes/filter.h; the last two fields begin anew at 0
_FILTER = struct.Struct("<IIQ4s4sHHIQIII")
_CGROUP_TYPES = {
    Where.CGROUP_INGRESS: AttachType.CGROUP_INET_INGRESS,
    Where.CGROUP_EGRESS: AttachType.CGROUP_INET_EGRESS,
}
_ICMP = 1
_NO_CHAINS = frozenset({"underlay"})
"""The underlay is a bridge: it has no IP hooks of its own."""


@dataclass(slots=True)
class _Source:
    """Where records come from, and what came."""

    ring: tracing.Ring | Lanes
    record_bytes: int
    records: list[bytes] = field(default_factory=list)
    size: int = 0

    def keep(self, stretch: bytes, most_bytes: int) -> int:
        """Keep as many records of a stretch as fit; return how many did not."""
        room = max(0, most_bytes - self.size) // self.record_bytes * self.record_bytes
        if kept := stretch[:room]:
            self.records.append(kept)
            self.size += len(kept)
        return (len(stretch) - len(kept)) // self.record_bytes


def load_probes(
    path: str, lanes: Lanes, config: dict[str, int], wanted: list[str], kind: ProgramType
) -> Loaded:
    """Load the wanted programs of an object, to write into these lanes.

    Args:
        kind: of programs in sections whose name libbpf does not know.

    Raises:
        VerifierError: the verifier refused a program.
        LabError: the kernel refused anything else.
    """
    config = {**config, "lane_records": lanes.records}
    return load_object(path, default_type=kind, config=config, only=wanted, reuse=lanes.maps)


class Collector:
    """Owner of all probes of one tracing caller.

    Args:
        context: of the keeper's child process.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.stack = ExitStack()
        self.namespaces: dict[str, NetworkNamespace] = context.namespaces
        self.inodes = {name: space.inode for name, space in self.namespaces.items()}
        self.links: dict[str, list[Link]] = {}
        self.refused: list[str] = []
        self.minds: dict[int, tuple[BpfMap, _Source]] = {}
        self.dropped = 0
        self.most_bytes: int = context.arguments.get("most_bytes") or MOST_BYTES
        # where no hook of netfilter is watched, what it tells could not be placed
        listen = bool(context.arguments.get("stacks", True))
        names = [name for name in self.namespaces if listen and name not in _NO_CHAINS]
        self.ear = NetfilterEar({name: self.namespaces[name] for name in names})
        self.stack.callback(self.ear.close)
        self.generation = 0
        self.filter_at = -1

    def start(self) -> None:
        """Load what the kernel can load and attach it everywhere in the lab; nothing records yet.

        Raises:
            LabError: the kernel refused a program it should know.
        """
        arguments = self.context.arguments
        light = not arguments.get("stacks", True)
        alone = arguments.get("alone", True)
        self.probes = usable(tracing.kernel_knows, light=light, alone=alone)
        encryption = ipsec.usable(functions=bool(arguments.get("functions")))
        lanes = self.lanes(LIGHT_BYTES if light else RECORD_BYTES)
        idle = bool(arguments.get("idle"))
        config = {"take_stacks": int(not light), "nothing_wanted": int(idle)}
        if vm.inside():
            config["recent_ns"] = EMULATED_RECENT_NS
        try:
            loaded = self._loaded(lanes, config, encryption)
        except VerifierError as error:
            if not any(probe.name in error.message for probe in encryption):
                raise
            # other kernels' functions may have other arguments: the rest is worth having
            self.refused.append(f"{ipsec.LOST}: {error.message.splitlines()[0]}")
            loaded = self._loaded(lanes, config, ())
        self.watch(loaded, arguments["object"])
        for probe in self.probes:
            self._attach(probe)
        self._open_minds()
        # the datapath counts since the lab began, not since this tracer did
        self.lost_before = self.lost()

    def lanes(self, record_bytes: int) -> Lanes:
        """Return the memory for the probes' records, now this collector's own.

        Raises:
            KernelError: memory is short.
        """
        room = MANY_BYTES if record_bytes == LIGHT_BYTES else FEW_BYTES
        lanes = self.stack.enter_context(Lanes(record_bytes, room))
        self.source = _Source(lanes, record_bytes)
        self.refusals = lanes.lost
        return lanes

    def _loaded(self, lanes: Lanes, config: dict[str, int], more: tuple[Probe, ...]) -> Loaded:
        """Load every probe that fits, and some more; they are the collector's from then on."""
        probes, path = (*self.probes, *more), self.context.arguments["object"]
        wanted = [probe.name for probe in probes]
        # libbpf 1.1 does not know the section "netfilter": programs without a type are those
        kind = ProgramType.NETFILTER
        try:
            loaded = load_probes(path, lanes, config, wanted, kind)
        except VerifierError:
            # The kernel's way of saying that its consume_skb has one argument.
            config["consume_has_location"] = 0
            loaded = load_probes(path, lanes, config, wanted, kind)
        self.probes = probes
        return loaded

    def watch(self, loaded: Loaded, path: str) -> None:
        """Take over what was loaded: its filter, the namespaces it looks at.

        Args:
            loaded: from an object with the maps of bpf/probes/filter.h.
            path: of that object.
        """
        self.loaded: Loaded = self.stack.enter_context(loaded)
        self._find_filter(path)
        for inode in self.inodes.values():
            self.loaded.maps["trace_netns"].update(struct.pack("<I", inode), b"\1")

    def _find_filter(self, path: str) -> None:
        # a plain global of the programs: its place in .bss stands in the object's BTF alone
        symbols = {s.name: s for s in read_object(path).variables if s.section == ".bss"}
        # libbpf puts the beginning of the object's name in front
        self.bss = next(m for name, m in self.loaded.maps.items() if name.endswith(".bss"))
        self.filter_at = symbols["trace_filter"].offset

    def _attach(self, probe: Probe) -> None:
        program = self.loaded.programs[probe.name]
        links = self.links.setdefault(probe.name, [])
        if probe.where is Where.TRACEPOINT:
            links.append(attach_tracing(program))
        elif probe.where is Where.FENTRY:
            links.append(attach_function(program))
        elif probe.where in _CGROUP_TYPES:
            group = self.context.arguments["cgroup"]
            links.append(attach_cgroup(program, group, _CGROUP_TYPES[probe.where]))
        else:
            for name, space in self.namespaces.items():
                with space.entered():
                    self._attach_inside(probe, name, links)
        for link in links:
            self.stack.callback(link.close)

    def _attach_inside(self, probe: Probe, name: str, links: list[Link]) -> None:
        program = self.loaded.programs[probe.name]
        if probe.where is Where.NETFILTER:
            if name in _NO_CHAINS:
                return
            first = probe.name == "netfilter_first"
            for hook in tracing.NetfilterHook:
                links.append(tracing.attach_netfilter(program, hook, first=first))
            return
        if probe.where is Where.SOCKET_LOOKUP:
            links.append(tracing.attach_sk_lookup(program))
            return
        side = Direction.INGRESS if probe.where is Where.TC_INGRESS else Direction.EGRESS
        for ifindex, device in socket.if_nameindex():
            # only beside strangers' programs: the datapath's own tell themselves, and where there
            # is none the probe must not be what makes the step be taken
            names = [_name_of(n) for n in _tc_programs(ifindex, side)] if device != "lo" else []
            if names and not any(name.startswith("cil_") for name in names):
                links.append(tracing.attach_tcx(program, ifindex, side))

    def _open_minds(self) -> None:
        for node in self.context.facts.nodes:
            folder = Path(globals_dir(node.name))
            if not (folder / "cilium_mind").exists():
                continue
            with BpfMap.from_pin(folder / "cilium_mind") as mind:
                ring = tracing.Ring(mind, MIND_RING_BYTES)
            self.stack.callback(ring.close)
            config = self.stack.enter_context(BpfMap.from_pin(folder / "cilium_runtime_config"))
            ring.take()  # what nobody read before
            self.minds[self.inodes[node.name]] = (config, _Source(ring, MIND_BYTES))

    # -- serving ------------------------------------------------------------------------------

    def answer(self, request: dict[str, Any], connection: socket.socket) -> None:
        """Do what one request asks for and send the answer.

        Raises:
            Closed: the caller is gone.
        """
        match request["op"]:
            case "filter":
                self.set_filter(**request["filter"])
                send(connection, {"ok": True, "legacy": sorted(self.ear.counted)})
            case "collect":
                self._send_records(connection, places=bool(request.get("places")))
            case "count":
                held = self.source.size // self.source.record_bytes
                send(connection, {"held": held, "lost": self.lost() - self.lost_before})
            case "legacy":
                send(connection, {"legacy": self.ear.legacy()})
            case "policies":
                send(connection, {"policies": self.ear.policies(request["namespaces"])})
            case "detach":
                for link in self.links.pop(request["program"], []):
                    link.close()
                send(connection, {"ok": True})
            case other:
                send(connection, {"error": "InputError", "message": f"unknown request {other}"})

    def describe(self) -> dict[str, Any]:
        """Return what the assembly needs to name places and programs."""
        return {
            "ready": True,
            "programs": {p.name: self.loaded.programs[p.name].info().id for p in self.probes},
            "places": self._places(),
            "hooks": self._hooks(),
            "refused": [*self.refused, *self.ear.refused],
            "kernel": os.uname().release,
        }

    def _places(self) -> list[list[Any]]:
        nodes = {node.name: node.name for node in self.context.facts.nodes}
        nodes |= {pod.netns: pod.node for pod in self.context.facts.pods}
        places: list[list[Any]] = []
        for name, space in self.namespaces.items():
            with space.entered():
                for ifindex, device in socket.if_nameindex():
                    places.append([space.inode, ifindex, nodes.get(name, ""), name, device])
        return places

    def _hooks(self) -> list[list[Any]]:
        hooks: list[list[Any]] = []
        for space in self.namespaces.values():
            with space.entered():
                for ifindex, _ in socket.if_nameindex():
                    for side in Direction:
                        own = tcx.query(ifindex, side)
                        if has_tcx(ifindex, side) and own is None:
                            hooks.append([space.inode, ifindex, f"tcx {side.name.lower()}", 0, ""])
                        # the first one speaks for the hook
                        for first in _tc_programs(ifindex, side)[:1]:
                            hooks.append(
                                [space.inode, ifindex, side.name.lower(), first, _name_of(first)]
                            )
                    with contextlib.suppress(KernelError):
                        if (number := query_xdp(ifindex)) is not None:
                            hooks.append([space.inode, ifindex, "xdp", number, _name_of(number)])
        return hooks

    def set_filter(
        self,
        mode: int,
        cookie: int = 0,
        entry: str = "",
        flow: tuple[str, str, int, int, int] = ("0.0.0.0", "0.0.0.0", 0, 0, 0),
        linger_jiffies: int = 50,
        mind: bool = True,
    ) -> None:
        """Say which packets are recorded from now on; mode 0 stops recording.

        Args:
            mode: ``enum filter_mode``.
            cookie: for mode 1.
            entry: namespace in which the packet begins; empty for anywhere in the lab.
            flow: source, destination, source port, destination port, protocol; 0 matches all.
            linger_jiffies: how long after its last sight a packet is looked for.
            mind: also let the datapath tell what it looks up.
        """
        source, destination, source_port, destination_port, protocol = flow
        if vm.inside():
            linger_jiffies *= EMULATED_LINGER
        self.generation += 1
        packed = _FILTER.pack(
            mode,
            self.inodes[entry] if entry else 0,
            cookie,
            IPv4Address(source).packed,
            IPv4Address(destination).packed,
            socket.htons(source_port),
            socket.htons(destination_port),
            protocol,
            linger_jiffies,
            self.generation,
            0,
            0,
        )
        # before the filter: the first packet wanted must find its rules traced already
        if mode:
            self.ear.arm(port=source_port or destination_port, protocol=protocol)
        # all of .bss is one element: trace_window falls back to 0, "no packet is under way", too
        value = bytearray(self.bss.spec.value_size)
        value[self.filter_at : self.filter_at + len(packed)] = packed
        self.bss.update(struct.pack("<I", 0), bytes(value))
        self._tell_minds(mode if mind else 0, cookie, _lasting_end(flow))

    def _tell_minds(self, mode: int, cookie: int, end: tuple[str, int] | None) -> None:
        """Let the datapath tell of the same packets: all, one end's, or the cookie's."""
        value = 1 if mode else 0
        if mode == MODE_TUPLE and end:
            (address,) = struct.unpack("<I", IPv4Address(end[0]).packed)
            # as bpf/lib/mind.h reads it: port from bit 48 on, address below, both as on the wire
            value = socket.htons(end[1]) << 48 | address
        if mode == MODE_COOKIE:
            # the datapath compares the last four bytes of the packet: no tunnel moves the end
            (tail,) = struct.unpack("<I", cookie.to_bytes(8, "big")[4:])
            value = MIND_BY_TAIL | tail
        for config, _ in self.minds.values():
            config.update(Index(index=RuntimeSlot.MIND).pack(), Word(value=value).pack())

    def drain(self) -> bool:
        """Move what the probes wrote into memory of its own; beyond a bound records count as lost.

        Returns:
            Whether so much came that the next look should be soon.
        """
        self.ear.drain()
        came = 0
        for source in (self.source, *(mind for _, mind in self.minds.values())):
            for stretch in source.ring.take():
                came += len(stretch)
                # taken out all the same: what comes next must find room where it was
                self.dropped += source.keep(stretch, self.most_bytes)
        return came > BUSY_BYTES

    def lost(self) -> int:
        """Return how many records found no room since the start of the lab's datapath."""
        total = self.refusals()
        for config, _ in self.minds.values():
            told = config.lookup(Index(index=RuntimeSlot.MIND_LOST).pack())
            total += Word.unpack(told).value if told else 0
        return int(total + self.dropped + self.ear.lost)

    def _send_records(self, connection: socket.socket, *, places: bool) -> None:
        self.drain()
        packets, self.source.records, self.source.size = b"".join(self.source.records), [], 0
        minds: list[tuple[int, bytes]] = []
        for inode, (_, source) in self.minds.items():
            minds.append((inode, b"".join(source.records)))
            source.records, source.size = [], 0
        send(
            connection,
            {
                "lost": self.lost() - self.lost_before,
                "bytes": len(packets),
                "netfilter": self.ear.hand_over(),
                "minds": [[inode, len(data)] for inode, data in minds],
                "places": self._places() if places else [],
            },
        )
        for data in (packets, *(data for _, data in minds)):
            connection.sendall(data)

    def close(self) -> None:
        """Take every probe out of the kernel; the datapath stops telling."""
        if self.filter_at >= 0:  # else it was refused before there was a filter
            with contextlib.suppress(LabError):
                # the datapath's maps outlive this process: its programs would go on telling nobody
                self.set_filter(0)
        self.stack.close()


def attach_function(program: Program) -> Link:
    """Attach an ``fentry`` or ``fexit`` program where its section says.

    Raises:
        KernelError: the kernel lets this function not be probed.
    """
    at_exit = program.section.startswith("fexit/")
    return attach_tracing(program, AttachType.TRACE_FEXIT if at_exit else AttachType.TRACE_FENTRY)


def _tc_programs(ifindex: int, side: Direction) -> tuple[int, ...]:
    """Return ids in the order in which they run: tcx, clsact; a tracer's links are left out."""
    own = tcx.query(ifindex, side)
    return (() if own is None else (own,)) + tc_filters(ifindex, side)


def _lasting_end(flow: tuple[str, str, int, int, int]) -> tuple[str, int] | None:
    """Return the end of a flow by which every node knows it, however it is translated.

    Masquerading changes the source's address and mostly leaves its port, which hardly another flow
    has; it leaves ICMP's destination, where nothing else is left to tell a flow by.
    """
    source, destination, source_port, destination_port, protocol = flow
    if source_port:
        return "0.0.0.0", source_port
    ends = ((source, 0), (destination, destination_port))
    order = reversed(ends) if protocol == _ICMP else ends
    return next((end for end in order if int(IPv4Address(end[0]))), None)


def _name_of(program_id: int) -> str:
    if not program_id:
        return ""  # a classifier that is no program
    with Program.from_id(program_id) as program:
        return program.info().name


def serve(connection: socket.socket, context: Context) -> None:
    """Trace for one caller until it closes the connection.

    Raises:
        Closed: the caller is gone; the keeper ends the process.
    """
    answer_requests(Collector(context), connection)


def answer_requests(collector: Collector, connection: socket.socket) -> None:
    """Start a collector and do what its caller asks until the connection is closed.

    Raises:
        Closed: the caller is gone.
        LabError: the collector could not be started.
    """
    try:
        collector.start()
        send(connection, collector.describe())
        busy = False
        while True:
            # probes wake nobody: what they wrote is fetched while the caller is quiet
            pause_s = BUSY_POLL_S if busy else POLL_S
            readable, _, _ = select.select([connection], [], [], pause_s)
            if readable:
                request, _ = receive(connection)
                collector.answer(request, connection)
            else:
                busy = collector.drain()
    finally:
        collector.close()
