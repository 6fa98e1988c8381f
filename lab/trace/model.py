"""A packet's path through the lab: hops in order of kernel time, and what they prove."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.trace.comparison import Comparison
from lab.trace.expect import Expectation
from lab.trace.steps import Evidence, Side, Step, Tie

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUp:
    """One question that a datapath program asked a map, or one tail call it took.

    Attributes:
        map: name of the map (``cilium_ipcache``).
        key: the key in words (``10.0.2.10/32``).
        value: the value in words; None where the map had no entry.
    """

    map: str
    key: str
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """Something of the kernel's own tables that decided, or was written, at a hop.

    Attributes:
        kind: ``rule`` (of a netfilter chain), ``policy`` (of a base chain), ``conntrack``,
            ``route``, ``neighbour`` or ``xfrm``.
        name: which, as the tool that lists it says: ``ip filter INPUT handle 4``, ``table 255``.
        text: what it says: ``udp dport 5000 drop``.
        verdict: what came of it: ``accept``, ``drop``, ``jump sub``, ``new``, ``local`` ...
        source: how this is known: ``nftrace``, ``ctnetlink``, the hook that showed it.
    """

    kind: str
    name: str
    text: str = ""
    verdict: str = ""
    source: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} {self.name}" + (f": {self.text}" if self.text else "")
        told = self.verdict in self.text.replace(",", " ").split()
        return what if told or not self.verdict else f"{what} → {self.verdict}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketId:
    """Which packet a trace is about.

    Attributes:
        cookie: 64-bit mark carried at the end of the innermost payload, as 16 hex digits; empty
            for a packet that the lab did not inject.
        protocol: ``udp``, ``tcp``, ``icmp`` or the number in words.
        source, destination: addresses of the innermost header at the first hop.
        source_port, destination_port: ports; ICMP type and identifier for ICMP; 0 if none.
        length: bytes of the frame at the first hop.
        sender, receiver: names of pod or node where known, else empty.
        info: TCP flags (``SYN,ACK``), ICMP type (``echo request``) or empty.
        number: within its recording; what relations name.
    """

    cookie: str = ""
    protocol: str
    source: str
    destination: str
    source_port: int = 0
    destination_port: int = 0
    length: int = 0
    sender: str = ""
    receiver: str = ""
    info: str = ""
    number: int = 0

    def __str__(self) -> str:
        return (
            f"{self.protocol} {self.source}:{self.source_port}"
            f" -> {self.destination}:{self.destination_port}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Where a packet comes from, or what became of it: segments, clones, merges, proxies.

    Attributes:
        tie: the kind, read from this packet to the other.
        packet: number of the other within the recording.
        reason: what shows it.
    """

    tie: Tie
    packet: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.tie} packet {self.packet}"


def ranges(numbers: Iterable[int]) -> str:
    """Return whole numbers in short: ``4-8, 11``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One sight of the packet, or one step that it did not take.

    Attributes:
        step: receive step, or None for send-side and other hooks.
        hook: where, in kernel or datapath words: ``netif_receive_skb``, ``from-container``,
            ``nf_postrouting``; for a step not taken the step's kernel function.
        side: receive, send or other.
        node, namespace, device: names from the topology; the namespace is the pod's name, the
            node's, ``underlay`` or ``world``. Empty where the hook knows none.
        ifindex: the device's number in that namespace, 0 if unknown.
        program: function name of the BPF program concerned, empty if none.
        evidence: how this is known.
        reason: why not taken; or what the evidence is, in one clause.
        verdict: ``pass``, ``drop``, ``redirect``, ``stolen``, ``queued`` ... or empty.
        drop_reason: name from the kernel's or the datapath's own list, or empty.
        mark: ``skb->mark``; None where not seen.
        identity: security identity in force; None where not seen.
        ct_state: ``new established reply related`` or empty.
        lookups: questions the datapath asked here, in order.
        met: rules, routes, policies and tracked connections of the kernel met here, in order.
        values: what a probe of the user's own says here, by its own field names, in order.
        packet: id of the packet within the trace (clones, fragments and GSO segments get their
            own); 0 is the injected one.
        skb: address of the socket buffer, 0 if none existed.
        link_layer: ``ethernet`` or ``ip``: what ``before`` and ``after`` begin with.
        before, after: bytes of the packet on entry and on exit; None where not captured.
        length: whole length in bytes at this hop (captured bytes may be fewer), 0 if unknown.
        ns: kernel time (CLOCK_MONOTONIC, nanoseconds); 0 for a step not taken.
        us: microseconds since the injection, None for a step not taken.
        cpu: processor, -1 if unknown.
        object: what can be looked up in the kernel for this line: ``prog 12``, ``map 7``,
            ``link 3``; never empty for a line that was seen.
        stack: kernel functions on the call stack, innermost first, where one was taken.
    """

    step: Step | None
    hook: str
    evidence: Evidence
    side: Side = Side.RECEIVE
    node: str = ""
    namespace: str = ""
    device: str = ""
    ifindex: int = 0
    program: str = ""
    reason: str = ""
    verdict: str = ""
    drop_reason: str = ""
    mark: int | None = None
    identity: int | None = None
    ct_state: str = ""
    lookups: tuple[LookUp, ...] = ()
    met: tuple[Met, ...] = ()
    values: tuple[tuple[str, int | str], ...] = ()
    packet: int = 0
    skb: int = 0
    link_layer: str = "ethernet"
    before: bytes | None = None
    after: bytes | None = None
    length: int = 0
    ns: int = 0
    us: float | None = None
    cpu: int = -1
    object: str = ""
    stack: tuple[str, ...] = ()

    @property
    def taken(self) -> bool:
        """True unless this line explains a step that the packet did not take."""
        return self.evidence.taken

    @property
    def dropped(self) -> bool:
        """True where the packet ended here against its sender's wish."""
        return self.taken and self.verdict == "drop"

    @property
    def place(self) -> tuple[str, str, str]:
        """``(node, namespace, device)``."""
        return (self.node, self.namespace, self.device)


@dataclass(frozen=True, slots=True)
class Passage:
    """Consecutive hops at one place: a device receiving, or a namespace sending.

    Attributes:
        place: ``(node, namespace, device)``.
        side: what the packet does there.
        hops: in order of time; steps not taken stand at their number.
    """

    place: tuple[str, str, str]
    side: Side
    hops: tuple[Hop, ...]

    def step(self, step: Step) -> Hop | None:
        """Return the best-proven hop of this step here, None if the passage has no such line."""
        found = [hop for hop in self.hops if hop.step is step]
        return min(found, key=lambda hop: hop.evidence.rank, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Everything seen of one packet (and of its clones and segments).

    Attributes:
        packet: which packet.
        hops: in order of kernel time, over all nodes.
        lost: events that the kernel could not hand over; above 0 the trace may have holes.
        lab, topology: names, empty if unknown.
        kernel: ``uname -r`` of the kernel that was traced.
        wall_ns: nanoseconds to add to a hop's ``ns`` to get the time since 1970.
        sources: what was watching, one sentence each.
        missing: evidence that this kernel could not give, one sentence each.
        relations: to other packets of the recording.
        witnesses: how tracepoints and functions compare, where both were asked.
    """

    packet: PacketId
    hops: tuple[Hop, ...]
    lost: int = 0
    lab: str = ""
    topology: str = ""
    kernel: str = ""
    wall_ns: int = 0
    sources: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    relations: tuple[Relation, ...] = ()
    witnesses: Comparison | None = None

    @property
    def ties(self) -> tuple[str, ...]:
        """What this packet is to others, in words: ``split into packets 4-8``."""
        numbers: dict[Tie, list[int]] = {}
        for relation in self.relations:
            numbers.setdefault(relation.tie, []).append(relation.packet)
        return tuple(
            f"{tie} packet{'s' if len(others) > 1 else ''} {ranges(others)}"
            for tie, others in numbers.items()
        )

    @property
    def taken(self) -> tuple[Hop, ...]:
        """Hops without the lines about steps not taken."""
        return tuple(hop for hop in self.hops if hop.taken)

    @property
    def drops(self) -> tuple[Hop, ...]:
        """Hops at which the packet was dropped."""
        return tuple(hop for hop in self.hops if hop.dropped)

    @property
    def delivered(self) -> bool:
        """True if some socket was woken with the packet in its queue, on the receiving pod."""
        return any(
            # "accepted" wakes a listener for a connection: no data came with it
            hop.step is Step.DATA_READY and hop.taken and hop.verdict != "accepted"
            for hop in self.hops
        )

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes in the order in which the packet first met them."""
        return tuple(dict.fromkeys(hop.node for hop in self.hops if hop.node))

    def at(
        self, node: str | None = None, *, namespace: str | None = None, device: str | None = None
    ) -> tuple[Hop, ...]:
        """Return the hops at a place; None matches every value."""
        return tuple(
            hop
            for hop in self.hops
            if node in (None, hop.node)
            and namespace in (None, hop.namespace)
            and device in (None, hop.device)
        )

    def steps(self, namespace: str | None = None) -> tuple[Step, ...]:
        """Return the receive steps taken, in order, in one namespace or in all."""
        return tuple(
            hop.step for hop in self.at(namespace=namespace) if hop.step is not None and hop.taken
        )

    def passages(self) -> tuple[Passage, ...]:
        """Return the hops grouped into runs at the same place and side, in order of time.

        Steps that begin anew are another run: what was decrypted comes in where it was.
        """
        runs: list[list[Hop]] = []
        reached: Step | None = None
        for hop in self.hops:
            same = runs and (runs[-1][0].place, runs[-1][0].side) == (hop.place, hop.side)
            # a step back at the same place: the packet, or its clone, arrived there once more
            if not same or (hop.step and reached and hop.step < reached):
                runs.append([])
                reached = None
            runs[-1].append(hop)
            reached = hop.step or reached
        return tuple(Passage(run[0].place, run[0].side, tuple(run)) for run in runs)

    def expect(self) -> Expectation:
        """Return what statements are made with: ``trace.expect().passes(...).delivered(...)``.

        Raises:
            CheckFailed: events were lost.
        """
        return Expectation(self)

    def matches(self, path: Path, *, update: bool = False) -> None:
        """Compare with a golden trace, tolerant of times, addresses and numbers.

        Raises:
            CheckFailed: the story differs; the first difference is marked.
            InputError: the file is not there.
        """
        Expectation(self).golden(path, update=update)

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the trace as JSON text in the documented schema (``SCHEMA_VERSION``)."""
        return json.dumps(self.as_dict(), indent=indent)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON value: plain dicts, lists, numbers and strings; bytes as hex."""
        head = {"schema": SCHEMA_VERSION, "packet": asdict(self.packet), "lost": self.lost}
        rest = {
            field.name: _plain(getattr(self, field.name))
            for field in fields(self)
            if field.name not in ("packet", "hops", "lost", "relations")
        }
        rest["relations"] = [asdict(relation) for relation in self.relations]
        return head | rest | {"hops": [_hop_as_dict(hop) for hop in self.hops]}

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Return the trace that ``to_json`` wrote.

        Raises:
            InputError: not JSON, not a trace, or written in another version of the schema.
        """
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"not a trace: line {error.lineno}, column {error.colno}: {error.msg}",
                hint="give the file that `lab trace ... -o json` wrote",
            ) from error
        if not isinstance(value, dict) or "hops" not in value:
            raise InputError(
                "not a trace: no list of hops in it",
                hint="give the file that `lab trace ... -o json` wrote",
            )
        if value.get("schema") != SCHEMA_VERSION:
            raise InputError(
                f"trace has schema {value.get('schema')!r}, this program reads {SCHEMA_VERSION}",
                hint="record the trace again, or read it with the program that wrote it",
            )
        return _trace_of(value)


def _plain(value: object) -> object:
    if isinstance(value, Comparison):
        return value.as_dict()
    return list(value) if isinstance(value, tuple) else value


def _hop_as_dict(hop: Hop) -> dict[str, Any]:
    value = {field.name: _plain(getattr(hop, field.name)) for field in fields(hop)}
    value["step"] = hop.step.number if hop.step else None
    value["evidence"] = hop.evidence.word
    value["side"] = hop.side.value
    value["lookups"] = [asdict(look_up) for look_up in hop.lookups]
    value["met"] = [asdict(one) for one in hop.met]
    # JSON objects keep their order, as the fields of the user's structure have one
    value["values"] = dict(hop.values)
    value["before"] = hop.before.hex() if hop.before is not None else None
    value["after"] = hop.after.hex() if hop.after is not None else None
    return value


def _known(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    # what is missing takes its default, what is unknown is left out
    return {field.name: value[field.name] for field in fields(kind) if field.name in value}


def _hop_of(value: Mapping[str, Any]) -> Hop:
    known = _known(Hop, value)
    known["step"] = Step.of(known["step"]) if known.get("step") else None
    known["evidence"] = Evidence.of(known["evidence"])
    known["side"] = Side(known.get("side", "receive"))
    known["met"] = tuple(Met(**_known(Met, one)) for one in known.get("met", ()))
    known["lookups"] = tuple(LookUp(**_known(LookUp, one)) for one in known.get("lookups", ()))
    known["values"] = tuple(known.get("values", {}).items())
    known["stack"] = tuple(known.get("stack", ()))
    for name in ("before", "after"):
        known[name] = bytes.fromhex(known[name]) if known.get(name) is not None else None
    return Hop(**known)


def _relation_of(value: Mapping[str, Any]) -> Relation:
    known = _known(Relation, value)
    known["tie"] = Tie(known["tie"])
    return Relation(**known)


def _trace_of(value: Mapping[str, Any]) -> Trace:
    known = _known(Trace, value)
    try:
        known["packet"] = PacketId(**_known(PacketId, value["packet"]))
        known["hops"] = tuple(_hop_of(hop) for hop in _list(value["hops"]))
        known["sources"] = tuple(value.get("sources", ()))
        known["missing"] = tuple(value.get("missing", ()))
        known["relations"] = tuple(map(_relation_of, value.get("relations", ())))
        known["witnesses"] = Comparison.of(value.get("witnesses"))
        return Trace(**known)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"not a trace: {type(error).__name__}: {error}",
            hint="give the file that `lab trace ... -o json` wrote, unchanged",
        ) from error


# a text would be taken for a list of its letters
def _list(value: object) -> Iterable[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise TypeError("hops is not a list")
    return value
