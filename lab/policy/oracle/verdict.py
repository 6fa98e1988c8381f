"""One packet through both directions: egress of the source, then ingress of the destination."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.policy.objects import (
    CiliumPolicy,
    Cluster,
    Direction,
    Machine,
    NetworkPolicy,
    Policy,
    Semantics,
    Workload,
)
from lab.policy.oracle import cilium, kubernetes
from lab.policy.oracle.common import Opinion, Packet, Place, Question, locate

Party = Workload | Machine | str
"""A pod, a node, or an IPv4 address (which may turn out to be a pod's or a node's)."""

DENIED_BY_DEFAULT = 133
DENIED_BY_RULE = 181


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ought to happen.

    Attributes:
        allowed: the packet arrives.
        reason: drop reason of the datapath: 0, 133 (nothing allows it) or 181 (a rule denies it).
        direction: in which direction it is dropped; ``None`` if allowed.
        because: rules that decide: those that allow, those that deny, or the policies that isolate.
    """

    allowed: bool
    reason: int = 0
    direction: Direction | None = None
    because: tuple[str, ...] = ()


def expect(
    cluster: Cluster,
    policies: Iterable[Policy],
    source: Party,
    destination: Party,
    packet: Packet,
    semantics: Semantics = Semantics.K8S,
) -> Verdict:
    """Return the verdict of the first packet of a flow from ``source`` to ``destination``.

    A pod always reaches itself; replies are not asked about, for they follow their flow.
    """
    known = tuple(policies)
    start, end = locate(cluster, source, None), locate(cluster, destination, None)
    if start.pod is not None and start.pod == end.pod:
        return Verdict(True, because=("a pod always reaches itself",))
    because: list[str] = []
    for direction, pod, other in (
        (Direction.EGRESS, start.pod, destination),
        (Direction.INGRESS, end.pod, source),
    ):
        if pod is None:
            continue
        remote = locate(cluster, other, pod.node)
        verdict = _judge(
            Question(cluster, pod, remote, end.pod, packet), direction, known, semantics
        )
        if not verdict.allowed:
            return verdict
        because += verdict.because
    return Verdict(True, because=tuple(because))


def _judge(
    question: Question, direction: Direction, policies: tuple[Policy, ...], semantics: Semantics
) -> Verdict:
    plain = [policy for policy in policies if isinstance(policy, NetworkPolicy)]
    special = [policy for policy in policies if isinstance(policy, CiliumPolicy)]
    said = kubernetes.opinion(question, direction, plain, semantics)
    also = cilium.opinion(question, direction, special, semantics)
    said = Opinion(
        said.isolated_by + also.isolated_by,
        said.allowed_by + also.allowed_by,
        said.denied_by + also.denied_by,
    )
    if said.denied_by:
        return Verdict(False, DENIED_BY_RULE, direction, tuple(said.denied_by))
    if not said.isolated_by:
        return Verdict(True, because=(f"no policy isolates {question.pod.title}",))
    if said.allowed_by:
        return Verdict(True, because=tuple(said.allowed_by))
    # "traffic to and from the node where a Pod is running is always allowed"; Cilium keeps the
    # promise for what comes in (kubelet's probes), and treats the node as a peer for what goes out
    if question.remote.place is Place.OWN_NODE and (
        direction is Direction.INGRESS or semantics is Semantics.K8S
    ):
        return Verdict(True, because=("a pod and its own node always reach each other",))
    return Verdict(False, DENIED_BY_DEFAULT, direction, tuple(said.isolated_by))
