"""The caller's end of tracing: start the collector in a lab, say what is wanted, get traces."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lab.datapath.build import SOURCES, build, build_objects
from lab.kernel import tracing
from lab.kernel.btf import read_object
from lab.kernel.nfnetlink import Connection, RuleMet
from lab.kernel.nfnetlink import parse as parse_netfilter
from lab.kernel.probe import may_probe_functions
from lab.observe import ipsec
from lab.observe.assemble import TRACEPOINTS, assemble
from lab.observe.late import Late, with_late_rules
from lab.observe.legacy import Counted, parse_counts
from lab.observe.met import Told
from lab.observe.mind import words_of
from lab.observe.names import Names, devices_from, names_from
from lab.observe.policies import Policy, parse_policies
from lab.observe.programs import left_out, missing
from lab.observe.records import (
    LIGHT_BYTES,
    MIND_BYTES,
    RECORD_BYTES,
    Config,
    MindRecord,
    Record,
    parse_mind,
    parse_record,
)
from lab.observe.rules import Ruleset, parse_ruleset
from lab.observe.stream import split
from lab.runtime.service import Service
from lab.trace import Trace

if TYPE_CHECKING:
    from lab.runtime.live import Lab

MODE_OFF, MODE_COOKIE, MODE_TUPLE, MODE_ALL = range(4)
_LONGEST_SETTLE_S = 1.0
_TOLD_NS = 1_000_000_000
SETTLE_S = 0.03
"""How long nothing new must have come before a recording counts as complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Which packets are wanted; empty and 0 match everything. Both directions are meant."""

    source: str = "0.0.0.0"
    destination: str = "0.0.0.0"
    source_port: int = 0
    destination_port: int = 0
    protocol: int = 0

    def as_list(self) -> list[Any]:
        """Return the five values in the order of the collector's filter."""
        return [
            self.source, self.destination, self.source_port, self.destination_port, self.protocol,
        ]  # fmt: skip


class Tracer(Service):
    """A running collector; ends with :meth:`close`, with the lab, or with this process.

    Args:
        lab: must be up.
        stacks: take call stacks (steps known only by stack cost microseconds per packet).
        most_bytes: of records held for a slow reader before they count as lost; 0 for the
            collector's own bound.
        alone: nobody watches functions beside it: it probes some itself where the kernel has no
            programs in netfilter's hooks.
        idle: attach programs that return at once and record nothing: what being attached costs.

    Raises:
        UnsupportedError: the kernel has no BTF.
        LabError: the collector could not load or attach its programs.

    Attributes:
        service: of the keeper that runs the collector.
        source: of the programs, in bpf/probes.
        reading: how their records become lines.
    """

    service = "lab.observe.collector"
    source = "packet.bpf.c"
    reading = TRACEPOINTS

    def __init__(
        self,
        lab: Lab,
        *,
        stacks: bool = True,
        most_bytes: int = 0,
        alone: bool = True,
        idle: bool = False,
    ) -> None:
        self._lab = lab
        self._stacks = stacks
        path = build([SOURCES / "probes" / self.source], root=SOURCES / "probes")[0]
        self._connection: socket.socket = lab.keeper.spawn(
            self.service,
            "",
            object=str(path),
            stacks=stacks,
            most_bytes=most_bytes,
            alone=alone,
            idle=idle,
            cgroup=lab.keeper.record.cgroup,
            functions=self._functions(),
        )
        answer = self._receive()
        self.kernel = str(answer["kernel"])
        self._programs = answer["programs"]
        self._names: Names = names_from(
            answer,
            symbol=tracing.symbol,
            drop_reasons=tracing.drop_reasons(),
            words=datapath_words(),
            owners=_owners(lab),
        )
        self.missing = self._missing(answer["refused"])
        self.lost = 0
        self._records: list[Record] = []
        self._notes: list[MindRecord] = []
        self._told: list[tuple[int, int, RuleMet | Connection]] = []
        self._rulesets: dict[int, Ruleset] = {}
        self._late: list[Late] = []
        self._legacy = False

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what is recorded -----------------------------------------------------------------------

    def only_cookie(
        self, cookie: int, *, sender: str = "", destination: str = "", source_port: int = 0
    ) -> None:
        """Record only the packet with this cookie, from its first sight in ``sender`` on.

        Args:
            cookie: 64 bits, as :func:`lab.packets.with_cookie` appends.
            sender: namespace in which it is sent: other places pay nothing until then.
            destination: address that the sender will ask a route for.
            source_port: that it will send from: rules are traced for its packets alone.
        """
        flow = Flow(destination=destination or "0.0.0.0", source_port=source_port)
        self._filter(MODE_COOKIE, cookie=cookie, entry=sender, flow=flow)

    def only_flow(self, flow: Flow, *, sender: str = "", mind: bool = True) -> None:
        """Record the packets of a flow, in both directions, translated ones included.

        Args:
            flow: which packets.
            sender: namespace in which they begin, empty for anywhere.
            mind: let the datapath tell too; it tells of every packet, not of this flow alone.
        """
        self._filter(MODE_TUPLE, flow=flow, entry=sender, mind=mind)

    def everything(self) -> None:
        """Record every packet in the lab."""
        self._filter(MODE_ALL)

    def pause(self) -> None:
        """Record nothing until told again; what was recorded stays."""
        self._filter(MODE_OFF)

    def object_of(self, probe: str) -> str:
        """Return what lines of this probe carry as their object, empty if it is not loaded."""
        return self._names.object(probe)

    def detach(self, probe: str) -> None:
        """Take one probe program out of the kernel, for experiments with evidence."""
        self._ask(op="detach", program=probe)

    def _filter(self, mode: int, **rest: object) -> None:
        if isinstance(flow := rest.get("flow"), Flow):
            rest["flow"] = flow.as_list()
        answer = self._ask(op="filter", filter={"mode": mode, **rest})
        if mode != MODE_OFF:
            self._legacy = bool(answer.get("legacy"))

    # -- what came ------------------------------------------------------------------------------

    def traces(self, *, settle_s: float = SETTLE_S) -> tuple[Trace, ...]:
        """Return a trace per packet recorded since the start or since :meth:`clear`.

        Args:
            settle_s: waits until nothing new came for so long; 0 takes what is there.
        """
        self._settle(settle_s)
        self._fetch(places=True)
        return self._assemble(self._records, self._notes)

    def complete(self, quiet_ns: int) -> tuple[Trace, ...]:
        """Return, and forget, the packets of which nothing new was seen for ``quiet_ns``."""
        self._fetch(places=True)
        # a record's time is bpf_ktime_get_ns(): CLOCK_MONOTONIC, as here
        before_ns = time.monotonic_ns() - quiet_ns
        done, notes, self._records, self._notes = split(
            self._records, self._notes, self._names, before_ns
        )
        traces = self._assemble(done, notes) if done else ()
        # some packets go on: what was told shortly before may be about them
        self._told = [told for told in self._told if told[1] >= before_ns - _TOLD_NS]
        return traces

    def _assemble(self, records: list[Record], notes: list[MindRecord]) -> tuple[Trace, ...]:
        # programs came and went since: their frames on call stacks need names
        tracing.reread_loaded()
        for probe in self._lab.probes:
            probe.take()
            self.lost += probe.lost
        traces = assemble(
            records,
            notes,
            self._names,
            told=Told(tuple(self._told), self._rulesets, self._policies(records), self._counts()),
            own=[event for probe in self._lab.probes for event in probe.events],
            lost=self.lost,
            lab=self._lab.name,
            topology=self._lab.topology.name,
            kernel=self.kernel,
            wall_ns=time.time_ns() - time.monotonic_ns(),
            missing=self.missing,
            reading=self.reading,
        )
        return with_late_rules(traces, self._late)

    def _missing(self, refused: list[str]) -> tuple[str, ...]:
        """What this kernel cannot tell, a sentence each; given what the collector was refused."""
        knows = tracing.kernel_knows
        told = missing(knows) + ipsec.missing(functions=self._functions())
        told += tuple(reason for reason in refused if reason.startswith(ipsec.LOST))
        return told + (() if self._stacks else left_out(knows))

    @staticmethod
    def _functions() -> bool:
        """Whether functions are to be probed: only for ESP, of which nothing else tells."""
        return ipsec.has_esp() and may_probe_functions()

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._fetch()
        self._records.clear()
        self._notes.clear()
        self._told.clear()

    def count(self) -> tuple[int, int]:
        """Return how many records wait to be fetched, and how many were lost, fetching none."""
        counted = self._ask(op="count")
        return int(counted["held"]), int(counted["lost"])

    def _settle(self, settle_s: float) -> None:
        """Fetch until nothing new came for a while, but not for ever: traffic may never end."""
        begun = quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < settle_s:
            if self._fetch():
                quiet_since = time.monotonic()
            if time.monotonic() - begun > _LONGEST_SETTLE_S:
                return

    def _fetch(self, *, places: bool = False) -> int:
        head = self._ask(op="collect", places=places)
        self.lost = head["lost"]
        self._hear(head["netfilter"])
        if places:
            # a device that is gone by now keeps the name it had
            devices = {**self._names.devices, **devices_from(head["places"])}
            self._names = replace(self._names, devices=devices)
        # raw bytes follow the answer: first the packets' records, then each node's notes
        data = self._read(head["bytes"])
        size = RECORD_BYTES if self._stacks else LIGHT_BYTES
        self._records += (parse_record(data[at : at + size]) for at in range(0, len(data), size))
        for netns, length in head["minds"]:
            notes = self._read(length)
            self._notes += (
                parse_mind(notes[at : at + MIND_BYTES], netns)
                for at in range(0, length, MIND_BYTES)
            )
        return len(data) // size

    def _hear(self, netfilter: dict[str, Any]) -> None:
        self._late = [(name, since, until) for name, since, until in netfilter["late"]]
        for netns, ns, data in netfilter["events"]:
            self._told += ((netns, ns, event) for event in parse_netfilter(bytes.fromhex(data)))
        for netns, texts in netfilter["rulesets"]:
            for text in texts:
                known = self._rulesets.get(netns, Ruleset())
                self._rulesets[netns] = known | parse_ruleset(text)

    def _counts(self) -> dict[int, tuple[Counted, Counted]]:
        """Ask what rules of iptables-legacy have counted, where there are any."""
        if not self._legacy:
            return {}
        told = self._ask(op="legacy")["legacy"]
        return {netns: (parse_counts(old), parse_counts(new)) for netns, old, new in told}

    def _policies(self, records: list[Record]) -> dict[int, tuple[Policy, ...]]:
        """Ask for the IPsec policies of namespaces in which a packet was checked by one."""
        found = {record.netns for record in records if record.config & Config.XFRM_POLICY_IN}
        found |= {record.netns for record in records if record.kind in ipsec.LINES}
        if not found:
            return {}
        answer = self._ask(op="policies", namespaces=sorted(found))
        return {netns: parse_policies(text) for netns, text in answer["policies"]}

    @property
    def _title(self) -> str:
        return "the tracer"


def datapath_words() -> dict[str, dict[int, str]]:
    """Return the datapath's own words (drop reasons, hooks, maps) by enum and number."""
    return words_of(read_object(build_objects(["bpf_lxc"])["bpf_lxc"]).btf.enums)


def _owners(lab: Lab) -> dict[str, str]:
    owners: dict[str, str] = {}
    for node in lab.facts.nodes:
        owners[str(node.address)] = owners[str(node.router)] = node.name
        owners |= {str(pod.address): pod.name for pod in node.pods}
    owners[str(lab.facts.gateway)] = owners[str(lab.facts.world_client)] = "world"
    return owners
