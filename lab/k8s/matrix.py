"""The truth table of a lab: who reaches whom on which port, expected and measured.

Expected values come from the oracle alone; measured ones from probes that real pods send.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lab.errors import InputError
from lab.names import did_you_mean
from lab.policy.objects import Cluster, Policy, Semantics
from lab.policy.oracle import Packet, Party, Verdict, expect

ALLOW, DENY, UNKNOWN = "allow", "deny", "unknown"

OUTSIDE = {"world": "203.0.113.10"}
"""Clients (and servers) outside the cluster that take part in a table."""

_PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
# who refuses was reached: a policy drops without a word
ANSWERS = {"open": ALLOW, "refused": ALLOW, "silent": DENY}
"""What the answer to a probe says of policy."""

_PROBERS = 16


@dataclass(frozen=True, slots=True, order=True)
class PortNumber:
    """A port of a table; for ``icmp`` the type of the request."""

    protocol: str
    number: int

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One flow of the table.

    Attributes:
        source: ``namespace/pod``, or ``world``.
        destination: the same.
        port: of the destination.
        expected: ``allow`` or ``deny`` by the oracle.
        reason: drop reason by the oracle, 0 if allowed.
        measured: ``allow``, ``deny``, ``unknown`` (not or not cleanly measured).
        because: rules that decide by the oracle.
    """

    source: str
    destination: str
    port: PortNumber
    expected: str
    reason: int
    measured: str = UNKNOWN
    because: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether the datapath did something else than the oracle says."""
        return self.measured not in (self.expected, UNKNOWN)

    def as_row(self) -> dict[str, object]:
        """Return the cell as a row of the JSON form."""
        return {
            "from": self.source,
            "to": self.destination,
            "port": self.port.number,
            "protocol": self.port.protocol,
            "expected": self.expected,
            "measured": self.measured,
        }


@dataclass(frozen=True, slots=True)
class Matrix:
    """All cells, by source, then destination, then port.

    Attributes:
        names: pods and outside clients in the order of the cluster.
        ports: in the order asked for.
        cells: one per ordered pair and port; a pod and itself are left out.
    """

    names: tuple[str, ...]
    ports: tuple[PortNumber, ...]
    cells: tuple[Cell, ...]

    @property
    def differences(self) -> tuple[Cell, ...]:
        """Cells whose measured value differs from the expected one."""
        return tuple(cell for cell in self.cells if cell.differs)

    def cell(self, source: str, destination: str, port: PortNumber) -> Cell | None:
        """Return one cell, or None where there is none."""
        for cell in self.cells:
            if (cell.source, cell.destination, cell.port) == (source, destination, port):
                return cell
        return None


def parse_ports(text: str) -> tuple[PortNumber, ...]:
    """Read ``80,53/udp,8/icmp``.

    Raises:
        InputError: no number, or an unknown protocol.
    """
    found = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        number, _, protocol = word.partition("/")
        protocol = (protocol or "tcp").lower()
        if not number.isdecimal() or int(number) > 65535:
            raise InputError(f"{word!r} is no port", hint="write PORT or PORT/PROTOCOL: 80,53/udp")
        if protocol not in _PROTOCOLS:
            raise InputError(
                f"{word!r}: protocol {protocol!r} is unknown",
                hint=did_you_mean(protocol, _PROTOCOLS),
            )
        found.append(PortNumber(protocol, int(number)))
    return tuple(dict.fromkeys(found))


def parties(cluster: Cluster) -> dict[str, Party]:
    """Return everybody who takes part: pods by ``namespace/name``, then those outside."""
    found: dict[str, Party] = {pod.title: pod for pod in cluster.workloads}
    return {**found, **OUTSIDE}


def expected(
    cluster: Cluster,
    policies: Sequence[Policy],
    ports: Sequence[PortNumber],
    semantics: Semantics = Semantics.K8S,
    names: Iterable[str] = (),
) -> Matrix:
    """Ask the oracle for every flow.

    Args:
        cluster: pods and nodes.
        policies: rule sets in force.
        ports: to ask about.
        semantics: whose promises.
        names: limits the table to flows from and to these; empty for everybody.

    Raises:
        InputError: a name of nobody.
    """
    everybody = parties(cluster)
    chosen = [find(everybody, name) for name in names] or list(everybody)
    cells = []
    for source in chosen:
        for destination in chosen:
            # what never enters a node is nobody's policy
            if source == destination or (source in OUTSIDE and destination in OUTSIDE):
                continue
            for port in ports:
                packet = Packet(port.protocol.upper(), port.number)
                verdict = expect(
                    cluster, policies, everybody[source], everybody[destination], packet, semantics
                )
                cells.append(_cell(source, destination, port, verdict))
    return Matrix(tuple(chosen), tuple(ports), tuple(cells))


def find(everybody: dict[str, Party], name: str) -> str:
    """Return the full name of ``POD``, ``NAMESPACE/POD`` or ``world``.

    Raises:
        InputError: nobody, or several, are called so.
    """
    if name in everybody:
        return name
    found = [full for full in everybody if full.rpartition("/")[2] == name]
    if f"default/{name}" in found or len(found) == 1:
        return f"default/{name}" if f"default/{name}" in found else found[0]
    if found:
        raise InputError(f"{name!r} is ambiguous", hint="write one of " + ", ".join(found))
    raise InputError(f"{name!r} is no pod of this lab", hint=did_you_mean(name, everybody))


def _cell(source: str, destination: str, port: PortNumber, verdict: Verdict) -> Cell:
    word = ALLOW if verdict.allowed else DENY
    return Cell(source, destination, port, word, verdict.reason, because=verdict.because)


class Prober(Protocol):
    """A place that can send probes: a live pod, node or the world."""

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """Run one operation of :mod:`lab.traffic.operations` there."""


def measured(
    matrix: Matrix,
    cluster: Cluster,
    places: Mapping[str, Prober],
    *,
    timeout_s: float = 0.5,
    again_s: float = 2.0,
) -> Matrix:
    """Send a probe for every cell; silence where an answer is expected is probed once more.

    Args:
        matrix: expected table.
        cluster: addresses.
        places: who sends, by name; cells of others stay ``unknown``.
        timeout_s: how long silence is silence.
        again_s: the same for the second look at cells that differ.
    """
    addresses = {pod.title: pod.address for pod in cluster.workloads} | OUTSIDE
    with ThreadPoolExecutor(_PROBERS) as pool:
        # Linux limits its ICMP errors: a refusal without an answer would look like a drop
        list(pool.map(lambda place: place.call("answer_refusals"), places.values()))
    first = _probe(matrix, addresses, places, timeout_s)
    # silence on a busy machine may be an answer that came late: asked once more, and longer
    doubtful = Matrix(matrix.names, matrix.ports, first.differences)
    if not doubtful.cells:
        return first
    second = {
        (cell.source, cell.destination, cell.port): cell
        for cell in _probe(doubtful, addresses, places, again_s).cells
    }
    cells = tuple(second.get((c.source, c.destination, c.port), c) for c in first.cells)
    return replace(first, cells=cells)


def _probe(
    matrix: Matrix, addresses: dict[str, str], places: Mapping[str, Prober], timeout_s: float
) -> Matrix:
    work: dict[str, list[int]] = {}
    for number, cell in enumerate(matrix.cells):
        # SCTP cannot be masqueraded (drop 168): what happens to it out there is not policy
        masked = cell.port.protocol == "sctp" and cell.destination in OUTSIDE
        if cell.source in places and not masked:
            work.setdefault(cell.source, []).append(number)
    answers: dict[int, str] = {}

    def probe(source: str) -> None:
        targets = [
            [
                matrix.cells[number].port.protocol,
                addresses[matrix.cells[number].destination],
                matrix.cells[number].port.number,
            ]
            for number in work[source]
        ]
        found = places[source].call("probe_many", targets=targets, timeout_s=timeout_s)
        answers.update(zip(work[source], found["answers"], strict=True))

    with ThreadPoolExecutor(_PROBERS) as pool:
        list(pool.map(probe, work))
    cells = tuple(
        replace(cell, measured=ANSWERS.get(answers.get(number, ""), UNKNOWN))
        for number, cell in enumerate(matrix.cells)
    )
    return replace(matrix, cells=cells)


@dataclass(frozen=True, slots=True)
class Change:
    """A flow whose verdict differs between two tables; ``absent`` where one lacks it."""

    source: str
    destination: str
    port: PortNumber
    before: str
    after: str


def changes(before: Matrix, after: Matrix) -> tuple[Change, ...]:
    """Return the flows whose expected verdict differs, in the order of the tables."""
    old = {(c.source, c.destination, c.port): c.expected for c in before.cells}
    new = {(c.source, c.destination, c.port): c.expected for c in after.cells}
    return tuple(
        Change(*key, old.get(key, "absent"), new.get(key, "absent"))
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    )
