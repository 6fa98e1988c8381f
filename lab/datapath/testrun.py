"""Run the datapath on single packets, without interfaces: what ``tests/datapath`` is made of.

A `Datapath` loads objects as they are on a node, maps shared and tail calls filled, but attaches
and pins nothing; a run sends one packet through one hook with ``BPF_PROG_TEST_RUN`` and collects
everything it left: verdict, packet, mark, events, counters. The reason of a drop is taken from
what the datapath reported, never guessed from the verdict. Needs root.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address
from typing import Any, Self

from lab.datapath.build import build_objects
from lab.datapath.events import DropEvent, Event, TraceEvent, decode, vocabulary
from lab.datapath.maps import MapView
from lab.datapath.objects import TailCall, program_type, tail_calls
from lab.errors import CheckFailed, InputError
from lab.kernel.bpf import ConfigValue, Loaded, Program, RawRun, load_object
from lab.kernel.bpfmap import BpfMap
from lab.kernel.bpfring import PerfReader
from lab.kernel.btf import read_object
from lab.layouts.attach import (
    ATTACH_POINTS,
    CALL_POLICY,
    OBJECTS,
    PRIVATE,
    XDP_OBJECTS,
    Hook,
)
from lab.layouts.core import MetricsKey, MetricsValue
from lab.layouts.maps import map_layout

PRELUDE = "bpf_prelude"
# sizeof(struct __sk_buff), and where its fields lie (linux/bpf.h): the context of a test run
_SKB_BYTES = 192
_MARK_AT, _CB_AT = 8, 48
_SKB_FIELDS = {"mark": 8, "priority": 32, "ingress_ifindex": 36, "ifindex": 40}
_TC_UNSPEC = 0xFFFFFFFF

DEFAULT_CONFIG: Mapping[str, ConfigValue] = {
    "endpoint_id": 266,
    "endpoint_ipv4": IPv4Address("10.0.1.10"),
    "security_identity": 256,
    "interface_mac": bytes.fromhex("06000a00010a"),
    "interface_ifindex": 10,
    "router_ipv4": IPv4Address("10.0.1.1"),
    "router_mac": bytes.fromhex("0a000a000101"),
    "node_ipv4": IPv4Address("172.30.0.1"),
    "host_ifindex": 4,
    "cilium_net_ifindex": 3,
    "tunnel_ifindex": 5,
    "native_ifindex": 2,
}
"""First node of a lab, and its first pod; a test overrides what it is about."""


class Verdict(Enum):
    """What a hook did with the packet, in the words of tc and XDP."""

    PASS = "pass"
    DROP = "drop"
    REDIRECT = "redirect"
    TX = "tx"
    STOLEN = "stolen"
    PIPE = "pipe"
    ABORTED = "aborted"
    OTHER = "other"


_TC_VERDICTS = {
    # with direct action, "unspecified" means that the next filter decides; there is none
    _TC_UNSPEC: Verdict.PASS,
    0: Verdict.PASS,
    2: Verdict.DROP,
    3: Verdict.PIPE,
    4: Verdict.STOLEN,
    7: Verdict.REDIRECT,
}
_XDP_VERDICTS = {
    0: Verdict.ABORTED,
    1: Verdict.DROP,
    2: Verdict.PASS,
    3: Verdict.TX,
    4: Verdict.REDIRECT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricChange:
    """What one run added to ``cilium_metrics`` under one reason and direction."""

    reason: int
    name: str
    direction: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """The tunnel a packet came out of: VNI and the node that encapsulated it."""

    vni: int
    source: IPv4Address = IPv4Address("172.30.0.2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one packet experienced.

    Attributes:
        verdict: of the hook.
        return_code: the number behind it.
        packet: as it left, Ethernet header first.
        mark: ``skb->mark`` afterwards; 0 for XDP.
        cb: ``skb->cb[0..4]`` afterwards; zeros for XDP.
        drop_reason: C name (``DROP_POLICY``) from the drop event, else from the counters; None if
            nothing was dropped.
        redirect_ifindex: where a redirected packet goes as the last trace event tells; 0 unknown.
        events: of ``cilium_events``, in order.
        metrics: what was counted.
        duration_ns: of the run, as the kernel measured it.
    """

    verdict: Verdict
    return_code: int
    packet: bytes = field(repr=False)
    mark: int
    cb: tuple[int, ...]
    drop_reason: str | None
    redirect_ifindex: int
    events: tuple[Event, ...]
    metrics: tuple[MetricChange, ...]
    duration_ns: int

    def event(self, kind: type[Event]) -> Event | None:
        """Return the first event of a kind, or None."""
        return next((event for event in self.events if isinstance(event, kind)), None)


@dataclass(slots=True)
class _Instance:
    """One object loaded with one configuration."""

    loaded: Loaded
    calls: tuple[TailCall, ...]


class Datapath:
    """Objects loaded for single-packet runs, sharing maps like those of one node.

    Args:
        config: load-time constants, over `DEFAULT_CONFIG`.

    Raises:
        PrerequisiteError: clang is missing.
        BuildError: a source does not compile.
        VerifierError: the kernel refuses a program (at the first run that needs it).
    """

    def __init__(self, **config: ConfigValue) -> None:
        self._config = {**DEFAULT_CONFIG, **config}
        self._paths = build_objects([*OBJECTS, PRELUDE])
        self._stack = ExitStack()
        self._maps: dict[str, BpfMap] = {}
        self._instances: dict[str, _Instance] = {}
        self._events: PerfReader | None = None
        self._prelude: Loaded | None = None
        # maps only, no program: which map an object brings must not depend on which test runs first
        for name in OBJECTS:
            self._share(self._load(name, {}, only=()))

    def close(self) -> None:
        """Give every program and map back."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, object_name: str, instance: str = "", **config: ConfigValue) -> Self:
        """Load an object, as the loader does for a device, and fill its tail calls.

        Loading under an ``instance`` name lets one test have several pods; without one, hooks use
        it. An earlier load of the same name is replaced.

        Raises:
            VerifierError: the kernel refuses a program.
            InputError: an unknown object or constant.
        """
        if object_name not in self._paths:
            raise InputError(
                f"no object {object_name!r} in the datapath", hint=f"known: {', '.join(OBJECTS)}"
            )
        path = self._paths[object_name]
        # the defaults are for all objects, and no object has every constant; what the test itself
        # names must exist
        known = {symbol.name for symbol in read_object(path).variables}
        merged = {name: v for name, v in self._config.items() if name in known} | config
        loaded = self._load(object_name, merged, only=None)
        made = _Instance(loaded, tail_calls(path, merged))
        for call in made.calls:
            program = loaded.programs[call.program]
            loaded.maps[call.map].update(
                struct.pack("<I", call.slot), struct.pack("<I", program.fd)
            )
        self._instances[instance or object_name] = made
        return self

    def substitute(self, name: str, bpf_map: BpfMap) -> None:
        """Let objects loaded from now on use ``bpf_map`` as their map ``name``; it is owned here.

        For tests of what happens when a map is full or of the wrong kind.
        """
        self._stack.callback(bpf_map.close)
        self._maps[name] = bpf_map

    def _load(
        self, name: str, config: Mapping[str, ConfigValue], *, only: tuple[str, ...] | None
    ) -> Loaded:
        path = self._paths[name]
        kind = program_type(path)
        made = load_object(path, default_type=kind, config=config, reuse=self._maps, only=only)
        self._stack.callback(made.close)
        return made

    def _share(self, loaded: Loaded) -> None:
        """Make the maps that a node's objects share known to the objects loaded later."""
        for name, bpf_map in loaded.maps.items():
            # each instance has global data of its own: its constants are in it
            if name not in PRIVATE and not name.endswith((".rodata", ".bss", ".data")):
                self._maps.setdefault(name, bpf_map)

    def _instance(self, name: str) -> _Instance:
        if name not in self._instances:
            self.load(name)
        return self._instances[name]

    def map(self, name: str, instance: str = "") -> MapView[Any, Any]:
        """Return a typed view of a map; it stays open as long as the datapath.

        Args:
            name: C name (``cilium_ipcache``).
            instance: whose, for maps that each object has of its own (``cilium_policy``).

        Raises:
            InputError: no loaded object has such a map, or its layout is unknown.
        """
        bpf_map = self._maps.get(name)
        if bpf_map is None:
            bpf_map = self._instance(instance or "bpf_lxc").loaded.maps.get(name)
        layout = map_layout(name)
        if bpf_map is None or layout is None or layout.key is None or layout.value is None:
            known = ", ".join(sorted(self._maps))
            raise InputError(f"no map {name!r} in the loaded objects", hint=f"known: {known}")
        return MapView(bpf_map, layout.key, layout.value)

    def program(self, hook: Hook | str, instance: str = "") -> Program:
        """Return the program of a hook, or of a C function name, loading its object if needed.

        Raises:
            InputError: no object has such a program.
        """
        wanted = hook.value if isinstance(hook, Hook) else hook
        for point in ATTACH_POINTS:
            if wanted in (point.hook.value, point.program):
                return self._instance(instance or point.object).loaded.programs[point.program]
        if hook is Hook.HANDLE_POLICY:
            # attached nowhere: other endpoints reach it through a slot of the node's tail-call map
            made = self._instance(instance or "bpf_lxc")
            wanted = next(call.program for call in made.calls if call.map == CALL_POLICY)
        for name in [instance] if instance else ["bpf_lxc", *self._instances]:
            if wanted in (programs := self._instance(name).loaded.programs):
                return programs[wanted]
        raise InputError(f"no program {wanted!r} in the datapath", hint="see `lab explain hooks`")

    def run(
        self,
        hook: Hook | str,
        packet: bytes,
        *,
        instance: str = "",
        cb: tuple[int, ...] = (),
        tunnel: Tunnel | None = None,
        tc_index: int = 0,
        **context: int,
    ) -> Result:
        """Send one packet through one hook and return everything that came of it.

        Args:
            hook: a hook, or the C name of a program (a tail call, for example).
            packet: bytes (``bytes(scapy_packet)``), Ethernet header first.
            instance: name given to `load`, if more than one object of the kind is loaded.
            cb: ``skb->cb`` to start with.
            tunnel: where the packet was decapsulated from; None for a plain packet.
            tc_index: ``skb->tc_index`` to start with.
            context: ``mark``, ``priority``, ``ifindex``, ``ingress_ifindex`` to start with; an
                index other than 1 must exist in the current network namespace.

        Raises:
            KernelError: the kernel refuses packet or context.
            InputError: an unknown hook or context field.
        """
        program = self.program(hook, instance)
        xdp = self._is_xdp(program)
        before = self._counters()
        # what came before this run belongs to others: the ring is emptied first
        self._reader().read()
        raw = self._run_raw(program, bytes(packet), xdp, cb, tunnel, tc_index, context)
        names = vocabulary()
        events = tuple(decode(sample, names) for sample in self._reader().read())
        changes = _changes(before, self._counters())
        verdicts = _XDP_VERDICTS if xdp else _TC_VERDICTS
        verdict = verdicts.get(raw.return_code, Verdict.OTHER)
        # an XDP run gives no context back
        skb = raw.context if len(raw.context) == _SKB_BYTES else bytes(_SKB_BYTES)
        return Result(
            verdict=verdict,
            return_code=raw.return_code,
            packet=raw.packet,
            mark=struct.unpack_from("<I", skb, _MARK_AT)[0],
            cb=struct.unpack_from("<5I", skb, _CB_AT),
            drop_reason=_drop_reason(events, changes),
            redirect_ifindex=_redirect(verdict, events),
            events=events,
            metrics=changes,
            duration_ns=raw.duration_ns,
        )

    def _is_xdp(self, program: Program) -> bool:
        return any(
            program in made.loaded.programs.values()
            for name, made in self._instances.items()
            if name in XDP_OBJECTS
        )

    def _run_raw(
        self,
        program: Program,
        packet: bytes,
        xdp: bool,
        cb: tuple[int, ...],
        tunnel: Tunnel | None,
        tc_index: int,
        context: Mapping[str, int],
    ) -> RawRun:
        if xdp:
            return program.test_run(packet)
        skb = bytearray(_SKB_BYTES)
        for name, value in context.items():
            if name not in _SKB_FIELDS:
                known = ", ".join(_SKB_FIELDS)
                raise InputError(f"a run cannot set skb->{name}", hint=f"it can set: {known}")
            struct.pack_into("<I", skb, _SKB_FIELDS[name], value)
        struct.pack_into(f"<{len(cb)}I", skb, _CB_AT, *cb)
        # the kernel refuses a context with tc_index or tunnel metadata: a program in front sets
        # them
        if tunnel is None and not tc_index:
            return program.test_run(packet, bytes(skb))
        return self._with_prelude(program, tunnel, tc_index).test_run(packet, bytes(skb))

    def _with_prelude(self, program: Program, tunnel: Tunnel | None, tc_index: int) -> Program:
        if self._prelude is None:
            path = self._paths[PRELUDE]
            self._prelude = load_object(path, default_type=program_type(path))
            self._stack.callback(self._prelude.close)
        zero = struct.pack("<I", 0)
        source = tunnel.source.packed if tunnel else bytes(4)
        state = struct.pack(
            "<II4sI", tunnel is not None, tunnel.vni if tunnel else 0, source, tc_index
        )
        self._prelude.maps["prelude_state"].update(zero, state)
        self._prelude.maps["prelude_next"].update(zero, struct.pack("<I", program.fd))
        return self._prelude.programs["prelude"]

    def _reader(self) -> PerfReader:
        if self._events is None:
            self._events = self._stack.enter_context(PerfReader(self._maps["cilium_events"]))
        return self._events

    def _counters(self) -> dict[MetricsKey, MetricsValue]:
        # not owned: closing it would take the map from the datapath
        view = MapView(self._maps["cilium_metrics"], MetricsKey, MetricsValue)
        return dict(view.items())


def _changes(
    before: Mapping[MetricsKey, MetricsValue], after: Mapping[MetricsKey, MetricsValue]
) -> tuple[MetricChange, ...]:
    names = vocabulary()
    none = MetricsValue()
    found = []
    for key, value in sorted(after.items(), key=lambda item: (item[0].reason, item[0].dir)):
        old = before.get(key, none)
        if value != old:
            found.append(
                MetricChange(
                    reason=key.reason,
                    name=names.reason(key.reason),
                    direction=key.dir,
                    packets=value.count - old.count,
                    bytes=value.bytes - old.bytes,
                )
            )
    return tuple(found)


def _drop_reason(events: tuple[Event, ...], changes: tuple[MetricChange, ...]) -> str | None:
    """Name of the drop both sources agree on.

    Raises:
        CheckFailed: event and counter name different reasons: the datapath contradicts itself.
    """
    told = {event.name for event in events if isinstance(event, DropEvent)}
    counted = {change.name for change in changes if change.name.startswith("DROP_")}
    if told and counted and told != counted:
        raise CheckFailed(
            f"the datapath told of {sorted(told)} but counted {sorted(counted)}",
            hint="every drop must be counted and told under one reason",
        )
    return next(iter(sorted(told or counted)), None)


def _redirect(verdict: Verdict, events: tuple[Event, ...]) -> int:
    if verdict is not Verdict.REDIRECT:
        return 0
    targets = [event.ifindex for event in events if isinstance(event, TraceEvent)]
    return targets[-1] if targets else 0
