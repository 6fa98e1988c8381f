"""Why a flow passes or not: the rules that decide, and the map entries that carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from lab.errors import KernelError
from lab.k8s.matrix import OUTSIDE, PortNumber, find, parties
from lab.k8s.place import World
from lab.k8s.pods import lab_name
from lab.kernel.bpfmap import BpfMap
from lab.names import RESERVED_IDENTITIES
from lab.policy.compiler import Compiler, EndpointPolicy
from lab.policy.entries import POLICY_DENIED_BY_DENYLIST, EntryKey, unpack_value
from lab.policy.objects import PROTOCOL_NUMBERS, Direction, Semantics, Workload
from lab.policy.oracle import Packet, Verdict, expect
from lab.runtime import Lab

_WORLD = RESERVED_IDENTITIES["world"]


@dataclass(frozen=True, slots=True)
class Side:
    """What one pod's policy map says of the flow.

    Attributes:
        direction: egress at the source, ingress at the destination.
        pod: whose map it is.
        identity: of the other side.
        key: the deciding entry; ``None`` if none matches.
        reason: 0 allowed, 133 no entry, 181 a deny entry.
        origins: rules that put the entry there.
        installed: the entry is in the pinned map with the same meaning; ``None``: not looked.
        packets: that the installed entry has decided about.
    """

    direction: Direction
    pod: str
    identity: int
    key: EntryKey | None
    reason: int
    origins: tuple[str, ...]
    installed: bool | None = None
    packets: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer.

    Attributes:
        source: ``namespace/pod`` or ``world``.
        destination: the same.
        port: of the flow.
        verdict: what the oracle says, and which rules make it so.
        sides: one per pod of the flow, in the order the packet meets them.
    """

    source: str
    destination: str
    port: PortNumber
    verdict: Verdict
    sides: tuple[Side, ...]


def explain(
    world: World,
    source: str,
    destination: str,
    port: PortNumber,
    *,
    semantics: Semantics = Semantics.K8S,
    lab: Lab | None = None,
) -> Explanation:
    """Explain one flow from manifests alone, or beside the maps of a running lab.

    Args:
        world: placed manifests.
        source: pod, ``namespace/pod`` or ``world``.
        destination: the same.
        port: of the flow.
        semantics: whose promises.
        lab: whose maps to look into.

    Raises:
        InputError: nobody is called so.
    """
    everybody = parties(world.cluster)
    start, end = find(everybody, source), find(everybody, destination)
    packet = Packet(port.protocol.upper(), port.number)
    policies = world.objects.policies
    verdict = expect(world.cluster, policies, everybody[start], everybody[end], packet, semantics)
    compiler = Compiler(semantics)
    if lab is not None:
        # with the numbers that pods have there: only then are keys those of the lab's maps
        compiler.adopt(world.cluster, _identities(lab))
    compiled = compiler.compile(world.cluster, policies)
    sides = []
    for direction, own, other in (
        (Direction.EGRESS, start, end),
        (Direction.INGRESS, end, start),
    ):
        pod = everybody[own]
        # a pod's packets to itself never leave its namespace
        if not isinstance(pod, Workload) or start == end:
            continue
        identity = compiled.identity_of.get(other, _WORLD)
        # somebody outside is known by the narrowest network that a policy names, if one does
        if other in OUTSIDE:
            identity = _network_identity(compiled.networks, OUTSIDE[other])
        endpoint = compiled.endpoints[own]
        side = _side(endpoint, direction, own, identity, packet)
        sides.append(_installed(lab, side) if lab else side)
    return Explanation(start, end, port, verdict, tuple(sides))


def _identities(lab: Lab) -> dict[str, int]:
    found = {}
    for identity in lab.agent.identities():
        for pod in identity.pods:
            found[pod if "/" in pod else f"default/{pod}"] = identity.id
    return found


def _network_identity(networks: Mapping[str, int], address: str) -> int:
    inside = [n for n in networks if IPv4Address(address) in IPv4Network(n)]
    longest = max(inside, key=lambda n: IPv4Network(n).prefixlen, default=None)
    return _WORLD if longest is None else networks[longest]


def _side(
    endpoint: EndpointPolicy, direction: Direction, own: str, identity: int, packet: Packet
) -> Side:
    match = endpoint.look_up(identity, direction, PROTOCOL_NUMBERS[packet.protocol], packet.port)
    origins = endpoint.origins.get(match.key, ()) if match.key else ()
    if match.key is None:
        origins = endpoint.isolated.get(direction, ())
    return Side(direction, own, identity, match.key, match.reason, origins)


def _installed(lab: Lab, side: Side) -> Side:
    facts = lab.pod(lab_name(side.pod)).facts
    if side.key is None:
        return side
    pin = lab.node(facts.node).pin("tc", "globals", f"cilium_policy_{facts.endpoint_id:05d}")
    try:
        with BpfMap.from_pin(pin) as policy:
            held = dict(policy.items()).get(side.key.pack())
    except KernelError:
        return side
    if held is None:
        return _with(side, False, 0)
    deny, packets, _ = unpack_value(held)
    return _with(side, deny is (side.reason == POLICY_DENIED_BY_DENYLIST), packets)


def _with(side: Side, installed: bool, packets: int) -> Side:
    return replace(side, installed=installed, packets=packets)
