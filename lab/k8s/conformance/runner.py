"""Runs the cases one after the other on one lab: apply, send, compare verdict and drop reason."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.datapath.maps import open_view
from lab.errors import InputError, LabError
from lab.k8s import live
from lab.k8s.conformance.cases import CASES, Case
from lab.k8s.conformance.cluster import MANIFESTS, NAMESPACE, NODE_PORTS
from lab.k8s.conformance.left_out import NOT_APPLICABLE
from lab.k8s.matrix import ALLOW, ANSWERS, DENY
from lab.k8s.objects import PolicyObject, key_of
from lab.k8s.read import read_text
from lab.k8s.state import load
from lab.names import did_you_mean
from lab.runtime import Lab

PASSED, FAILED, SKIPPED = "pass", "fail", "not applicable"

_FLOW = re.compile(r"(\S+) > (\S+) (\d+)(?:/(\w+))? (allow|deny)(?: (\d+))?\Z")
_HARMLESS = frozenset({133, 181, 132, 139, 150, 151, 166, 158, 168, 189, 202})
"""Drop reasons that Cilium's own final check expects to see."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of one case: ``pass``, ``fail`` or ``not applicable``; details say why."""

    name: str
    outcome: str
    details: tuple[str, ...] = ()
    seconds: float = 0.0


def run(
    names: tuple[str, ...] = (), *, lab_name: str = "conformance", engine: str = "netns"
) -> Iterator[CaseResult]:
    """Build the suite's lab, run cases, yield results as they come, take the lab down.

    Args:
        names: which; all of them if empty.
        lab_name: of the lab.
        engine: ``netns`` or ``mininet``.

    Raises:
        InputError: an unknown name.
        LabError: the lab cannot be built.
    """
    known = [*(case.name for case in CASES), *_CHECKS, *NOT_APPLICABLE]
    for name in names:
        if name not in known:
            raise InputError(f"no case is called {name!r}", hint=did_you_mean(name, known))
    wanted = names or tuple(known)
    with _lab(lab_name, engine) as lab:
        suite = _Suite(lab)
        for case in CASES:
            if case.name in wanted:
                yield _timed(case.name, lambda case=case: suite.run(case))  # type: ignore[misc]
        for name, check in _CHECKS.items():
            if name in wanted:
                yield _timed(name, lambda check=check: check(suite))  # type: ignore[misc]
    for name, reason in NOT_APPLICABLE.items():
        if name in wanted:
            yield CaseResult(name, SKIPPED, (reason,))


@contextmanager
def _lab(name: str, engine: str) -> Iterator[Lab]:
    lab, _ = live.up(read_text(MANIFESTS, "suite"), name=name, engine=engine, attached=True)
    try:
        yield lab
    finally:
        lab.stop()


def _timed(name: str, work: Callable[[], list[str]]) -> CaseResult:
    started = time.monotonic()
    try:
        problems = work()
    except LabError as error:
        problems = [str(error)]
    outcome = FAILED if problems else PASSED
    return CaseResult(name, outcome, tuple(problems), time.monotonic() - started)


class _Suite:
    """The lab of the suite and what cases do with it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.addresses = {item.name: item.address for item in lab.agent.services()}

    def run(self, case: Case) -> list[str]:
        """Apply a case's policies, send its flows, take the policies back; return problems."""
        objects = read_text(case.policies, case.name)
        live.apply(self.lab, objects)
        try:
            return [problem for flow in case.flows if (problem := self._flow(flow))]
        # the next case begins without this one's policies, whatever became of it
        finally:
            policies = load(self.lab).objects.of(PolicyObject)
            live.delete(self.lab, [key_of(policy) for policy in policies])

    def _flow(self, text: str) -> str:
        match = _FLOW.match(text)
        assert match, text
        source, target, port, protocol, word, reason = match.groups()
        before = self.drops()
        place = self.lab.place(self._place(source))
        wanted = [protocol or "tcp", self._address(target), int(port)]
        # where silence is right nobody should wait long for it; where an answer is, a slow one is
        # one
        timeout_s = 0.3 if word == DENY else 2.0
        answer = place.call("probe_many", targets=[wanted], timeout_s=timeout_s)["answers"][0]
        if ANSWERS.get(answer) != word:
            return f"{text}: {answer}"
        if word == ALLOW:
            return ""
        # the reason, not only the silence: a packet lost for another cause must not pass for denied
        counted = {n for n, count in self.drops().items() if count > before.get(n, 0)}
        return "" if counted == {int(reason)} else f"{text}: dropped with {sorted(counted)}"

    def _place(self, name: str) -> str:
        if name == "world":
            return name
        kind, _, rest = name.rpartition(":")
        return rest if kind == "node" else f"{NAMESPACE}/{name}"

    def _address(self, name: str) -> str:
        if name == "world":
            return str(self.lab.facts.world_client)
        if name == "gateway":
            return str(self.lab.facts.gateway)
        kind, _, rest = name.partition(":")
        if kind == "svc":
            return self.addresses[f"{NAMESPACE}/{rest}"]
        if kind == "np":
            return str(self.lab.node(rest.partition(":")[0]).address)
        return str(self.lab.place(self._place(name)).address)

    def drops(self) -> dict[int, int]:
        """Return drop reason -> packets dropped so far on all nodes."""
        found: dict[int, int] = {}
        for node in self.lab.facts.nodes:
            bpffs = Path(self.lab.node(node.name).pin())
            with open_view(bpffs, "cilium_metrics") as metrics:
                for key, value in metrics.items():
                    if key.reason >= 130:
                        found[key.reason] = found.get(key.reason, 0) + value.count
        return found


# --- cases that are more than flows ---------------------------------------------------------


def _no_frag(suite: _Suite) -> list[str]:
    """A ping as large as the route's MTU passes whole, to a pod of either node."""
    client = suite.lab.pod(f"{NAMESPACE}/client")
    problems = []
    for target in ("echo-same-node", "echo-other-node"):
        # 1450 bytes of MTU with VXLAN: IPv4 20, ICMP 8, and the cookie at the payload's end
        payload = bytes(1450 - 28 - 16)
        if not client.ping(suite.lab.pod(f"{NAMESPACE}/{target}"), payload=payload).ok:
            problems.append(f"client > {target}: 1450 bytes do not pass")
    return problems


_STREAM = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)
connection.settimeout(2)
end = time.monotonic() + 1.5
while time.monotonic() < end:
    connection.sendall(b"beat")
    assert connection.recv(4) == b"beat"
"""


def _uninterrupted(suite: _Suite) -> list[str]:
    """Connections to pods of both nodes go on while the agent is killed and comes back."""
    client = suite.lab.pod(f"{NAMESPACE}/client")
    targets = [
        (suite.lab.pod(f"{NAMESPACE}/{name}"), suite.lab.pod(f"{NAMESPACE}/{name}").address)
        for name in NODE_PORTS
    ]
    problems = []
    for pod, address in targets:
        with pod.serve_tcp(9000), ThreadPoolExecutor(1) as pool:
            words = ["python3", "-c", _STREAM, str(address), "9000"]
            stream = pool.submit(client.run, words, timeout_s=20)
            suite.lab.agent.restart()
            done = stream.result()
        if done.returncode:
            problems.append(f"client > {pod.name}: {done.stderr.strip()[-200:]}")
    return problems


def _no_unexpected_drops(suite: _Suite) -> list[str]:
    found = suite.drops()
    return [f"reason {n}: {count} packets" for n, count in found.items() if n not in _HARMLESS]


_CHECKS: dict[str, Callable[[_Suite], list[str]]] = {
    "pod-to-pod-no-frag": _no_frag,
    "no-interrupted-connections": _uninterrupted,
    "no-unexpected-packet-drops": _no_unexpected_drops,
}


def case_names() -> tuple[str, ...]:
    """Return the names of all cases that run, in order."""
    return (*(case.name for case in CASES), *_CHECKS)
