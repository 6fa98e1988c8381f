"""What the datapath says as it happens, in the lines of ``cilium monitor``.

Each node has one set of event rings, and a ring has one reader: a second monitor of the same
node is refused instead of silently taking the first one's events. Needs root.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab.datapath.events import (
    CaptureEvent,
    DebugEvent,
    DropEvent,
    Event,
    PolicyVerdictEvent,
    TraceEvent,
    Vocabulary,
    decode,
    vocabulary,
)
from lab.errors import InputError
from lab.kernel.bpfmap import BpfMap, possible_cpus
from lab.kernel.bpfring import DEFAULT_PAGES, PerfReader
from lab.layouts.attach import GLOBALS
from lab.observe import told
from lab.observe.headers import ICMP, TCP, UDP, network_bytes_of, parse
from lab.plan.inventory import (
    CILIUM_HOST_INDEX,
    CILIUM_NET_INDEX,
    CILIUM_VXLAN_INDEX,
    ETH0_INDEX,
    Inventory,
    NodeFacts,
)
from lab.runtime.service import Service

if TYPE_CHECKING:
    from lab.runtime.live import Lab

_ARROWS = {
    "TO_LXC": "-> endpoint {event.dst_endpoint}",
    "TO_PROXY": "-> proxy port {event.dst_endpoint}",
    "TO_HOST": "-> host from",
    "TO_STACK": "-> stack",
    "TO_OVERLAY": "-> overlay",
    "TO_NETWORK": "-> network",
    "TO_CRYPTO": "-> crypto",
    "FROM_LXC": "<- endpoint {event.source}",
    "FROM_PROXY": "<- proxy",
    "FROM_HOST": "<- host",
    "FROM_STACK": "<- stack",
    "FROM_OVERLAY": "<- overlay",
    "FROM_NETWORK": "<- network",
    "FROM_CRYPTO": "<- crypto",
}
_ICMP_WORDS = {0: "EchoReply", 3: "DestinationUnreachable", 8: "EchoRequest", 11: "TimeExceeded"}
TYPES: Mapping[str, type[Event]] = {
    "drop": DropEvent,
    "trace": TraceEvent,
    "policy-verdict": PolicyVerdictEvent,
    "debug": DebugEvent,
    "capture": CaptureEvent,
}
"""What ``--type`` accepts."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One event and the node whose datapath told it."""

    node: str
    event: Event


class _Listening(Service):
    """While it is open, the nodes tell of every packet."""

    _title = "the listener"

    def __init__(self, lab: Lab, nodes: tuple[str, ...]) -> None:
        self._lab = lab
        self._connection = lab.keeper.spawn(told.SERVICE, nodes=nodes)
        try:
            self._receive()
        except BaseException:
            self._connection.close()
            raise


class Monitor:
    """Reader of the event rings of some nodes; use it in a ``with``.

    As long as it lives, however it ends, its nodes tell of every packet.

    Args:
        lab: must be up.
        nodes: names of those to listen to.
        locks: folder for the files that keep a second reader out.

    Raises:
        InputError: somebody reads the events of one of the nodes already.
        KernelError: a node is gone, or perf events are not permitted.
    """

    def __init__(self, lab: Lab, nodes: Iterable[str], locks: Path) -> None:
        self._stack = ExitStack()
        self._readers: dict[str, PerfReader] = {}
        self._names: Vocabulary = vocabulary()
        self._poll = select.poll()
        with ExitStack() as stack:
            nodes = tuple(nodes)
            for node in nodes:
                # a lock, not a look: the kernel would let a second reader replace the first one's
                # rings
                self._lock(stack, locks / f"monitor-{node}.lock", node)
                pin = Path(lab.node(node).pin()) / GLOBALS / "cilium_events"
                with BpfMap.from_pin(pin) as events:
                    self._readers[node] = stack.enter_context(PerfReader(events))
                self._poll.register(self._readers[node].fileno(), select.POLLIN)
            stack.callback(_Listening(lab, nodes).close)
            self._stack = stack.pop_all()

    @staticmethod
    def _lock(stack: ExitStack, path: Path, node: str) -> None:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"somebody reads the events of node {node!r} already",
                hint="a ring has one reader: end the other monitor first",
            ) from None

    @property
    def lost(self) -> int:
        """Events that found a ring full since the beginning."""
        return sum(reader.lost for reader in self._readers.values())

    def read(self, *, wait_ms: int = 0) -> tuple[Heard, ...]:
        """Return the events waiting, waiting up to ``wait_ms`` (-1: for ever) for the first.

        Events of one CPU of one node are in order; those of different ones may be interleaved.

        Raises:
            KernelError: a record is of another version of the datapath.
        """
        self._poll.poll(wait_ms)
        return tuple(
            Heard(node, decode(sample, self._names))
            for node, reader in self._readers.items()
            for sample in reader.read()
        )

    def close(self) -> None:
        """Stop reading; the datapath goes on telling nobody."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def greeting() -> str:
    """Return the line a monitor begins with: CPUs and shared memory."""
    return (
        f"Listening for events on {possible_cpus()} CPUs with "
        f"{DEFAULT_PAGES}x{os.sysconf('SC_PAGE_SIZE')} of shared memory"
    )


def device_names(node: NodeFacts) -> dict[int, str]:
    """Return the devices of a node by interface index."""
    own = {
        ETH0_INDEX: "eth0",
        CILIUM_NET_INDEX: "cilium_net",
        CILIUM_HOST_INDEX: "cilium_host",
        CILIUM_VXLAN_INDEX: "cilium_vxlan",
    }
    return own | {pod.lxc_index: pod.lxc for pod in node.pods}


def connection(packet: bytes) -> str:
    """Return ``a:p -> b:q tcp SYN`` of a captured frame, as far as its bytes go."""
    parsed = parse(network_bytes_of(packet), through=False)
    if parsed is None:
        return "[unknown]"
    if parsed.protocol in (TCP, UDP):
        flags = " " + parsed.info.replace(",", ", ") if parsed.info else ""
        ends = f"{parsed.source}:{parsed.ports[0]} -> {parsed.destination}:{parsed.ports[1]}"
        return f"{ends} {parsed.name}{flags}"
    if parsed.protocol == ICMP:
        kind = parsed.ports[0] >> 8
        words = _ICMP_WORDS.get(kind, f"type {kind}")
        return f"{parsed.source} -> {parsed.destination} {words}"
    return f"{parsed.source} -> {parsed.destination} {parsed.name}"


def line(heard: Heard, facts: Inventory) -> str:
    """Return one event as ``cilium monitor`` prints it."""
    event = heard.event
    devices = device_names(facts.node(heard.node))
    if isinstance(event, DropEvent):
        return _drop_line(event)
    if isinstance(event, TraceEvent):
        return _trace_line(event, devices)
    if isinstance(event, PolicyVerdictEvent):
        return _verdict_line(event)
    if isinstance(event, DebugEvent):
        numbers = " ".join(f"{number:#x}" for number in event.arguments)
        return f"CPU {event.cpu:02}: FROM {event.source} DEBUG: {event.kind} {numbers}"
    return f"CPU {event.cpu:02}: {event}"


def _drop_line(event: DropEvent) -> str:
    return (
        f"xx drop ({event.text}) flow {event.hash:#x} to endpoint {event.dst_endpoint}, "
        f"ifindex {event.ifindex}, file {event.file}:{event.line}, "
        f"identity {event.src_identity}->{event.dst_identity}: {connection(event.packet)}"
    )


def _trace_line(event: TraceEvent, devices: Mapping[int, str]) -> str:
    arrow = _ARROWS.get(event.name, event.name).format(event=event)
    encrypted = "encrypted " if event.encrypted else ""
    device = devices.get(event.ifindex, str(event.ifindex))
    return (
        f"{arrow} {encrypted}flow {event.hash:#x} "
        f"identity {event.src_identity}->{event.dst_identity} state {event.reason} "
        f"ifindex {device} orig-ip {event.original_source or '0.0.0.0'}: "
        f"{connection(event.packet)}"
    )


def _verdict_line(event: PolicyVerdictEvent) -> str:
    if event.verdict > 0:
        action = f"redirect to proxy port {event.verdict}"
    else:
        action = "allow" if event.allowed else "deny"
    if event.audited:
        action = "audit"
    return (
        f"Policy verdict log: flow {event.hash:#x} local EP ID {event.source}, "
        f"remote ID {event.remote_identity}, proto {event.protocol}, {event.direction}, "
        f"action {action}, match {event.match}, {connection(event.packet)}"
    )


def concerns(event: Event, endpoint: int) -> bool:
    """Return whether an event was told by an endpoint's programs or is about a packet to it."""
    return endpoint in (event.source, getattr(event, "dst_endpoint", 0))
