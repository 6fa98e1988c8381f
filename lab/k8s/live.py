"""Manifests on a running lab: bring up, apply, delete; all of an apply or nothing of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lab.errors import CheckFailed, InputError, LabError
from lab.k8s import state as states
from lab.k8s.backends import names_of, services_of
from lab.k8s.objects import Namespace, Objects, PodObject, key_of
from lab.k8s.place import World, place, undescribed_namespaces
from lab.k8s.pods import (
    check_containers,
    lab_name,
    ready_pods,
    start_containers,
    stop_containers,
    unrealised,
)
from lab.k8s.servers import listeners_of
from lab.k8s.state import State
from lab.model import LOAD_BALANCER_NETWORK, Options, Pod, Topology
from lab.model import Namespace as LabNamespace
from lab.names import did_you_mean
from lab.plan.inventory import settled as settled_topology
from lab.policy.compiler import Compiler
from lab.policy.objects import Semantics
from lab.runtime import Lab
from lab.runtime.start import Progress
from lab.waiting import eventually

READY_WITHIN_S = 3.0
"""How long ``up`` and ``apply`` wait for readiness probes to pass before going on without."""

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an apply or delete did.

    Attributes:
        lines: ``kind/name created|configured|unchanged|deleted``, as kubectl prints them.
        notes: what was read and left out, and ports or commands that did not start.
    """

    lines: tuple[str, ...]
    notes: tuple[str, ...] = ()


def prepare(
    objects: Objects,
    *,
    name: str,
    options: Options | None = None,
    semantics: Semantics = Semantics.K8S,
) -> World:
    """Place manifests and check everything that can be checked without a lab.

    Raises:
        InputError: what is impossible, before anything is built.
    """
    world = place(objects, name=name, options=options)
    _check(world, semantics)
    return world


def _check(world: World, semantics: Semantics) -> None:
    check_containers(world.pods)
    # for its complaints alone
    services_of(world, frozenset())
    Compiler(semantics).compile(world.cluster, world.objects.policies)


def up(
    objects: Objects,
    *,
    name: str,
    engine: str = "netns",
    options: Options | None = None,
    semantics: Semantics = Semantics.K8S,
    attached: bool = False,
    progress: Progress | None = None,
) -> tuple[Lab, Outcome]:
    """Build a lab from manifests, start its containers, put services and policies in force.

    Args:
        objects: what to build.
        name: of the lab.
        engine: ``netns`` or ``mininet``.
        options: of the datapath.
        semantics: whose policy promises hold.
        attached: the lab ends with this process.
        progress: called with (steps done, steps in all).

    Raises:
        LabError: nothing is left behind.
    """
    world = prepare(objects, name=name, options=options, semantics=semantics)
    lab = Lab(world.topology, name=name, engine=engine, progress=progress)
    lab.start(attached=attached)
    try:
        open_world(lab)
        outcome = _Change(lab, State(semantics=semantics), world).run()
    # Ctrl-C as well: nothing is left behind
    except BaseException:
        lab.stop()
        raise
    return lab, outcome


def open_world(lab: Lab) -> None:
    """Give those outside a way to the pods themselves; what passes, policy decides.

    As from a machine that routes pod networks to their nodes. Idempotent.
    """
    ways = [(str(node.pod_cidr), node) for node in lab.facts.nodes]
    ways.append((str(LOAD_BALANCER_NETWORK), lab.facts.nodes[0]))
    for network, node in ways:
        # from the address that source ranges and IP blocks of manifests mean by "outside"
        route = [network, "via", str(node.address), "src", str(lab.facts.world_client)]
        lab.world.run(["ip", "route", "replace", *route], check=True)


def apply(lab: Lab, objects: Objects) -> Outcome:
    """Add objects to a running lab, or change those it has.

    Raises:
        InputError: something is impossible; the lab is as before.
    """
    state = states.load(lab)
    following = state.objects.with_(objects)
    world = _following(lab, state, following)
    return _Change(lab, state, world).run(frozenset(key_of(item) for item in objects.items))


def delete(lab: Lab, keys: Iterable[Key]) -> Outcome:
    """Take objects out of a running lab: kind, namespace (empty for cluster-wide ones), name.

    Raises:
        InputError: one of them is not there; the lab is as before.
    """
    state = states.load(lab)
    have = {key_of(item) for item in state.objects.items}
    wanted = frozenset(keys)
    for key in sorted(wanted - have):
        kind, namespace, name = key
        known = [other[2] for other in have if other[:2] == (kind, namespace)]
        raise InputError(f"{kind} {name!r} is not in the lab", hint=did_you_mean(name, known))
    world = _following(lab, state, state.objects.without(wanted))
    return _Change(lab, state, world).run(wanted)


def _following(lab: Lab, state: State, objects: Objects) -> World:
    topology = lab.topology
    world = replace(state, objects=objects).world(settled(lab))
    # nodes are built before the first pod; another one would be another underlay for all of them
    if {node.name for node in world.topology.nodes} != {node.name for node in topology.nodes}:
        raise InputError("a running lab cannot get other nodes", hint="bring it up anew")
    _check(world, state.semantics)
    return world


def settled(lab: Lab) -> Topology:
    """Return a running lab's topology with every pod's address written down."""
    return settled_topology(lab.facts)


class _Change:
    """From the state of a lab to the world it is to become."""

    def __init__(self, lab: Lab, state: State, world: World) -> None:
        self.lab = lab
        self.state = state
        self.world = world
        self.before = {pod.meta.title: pod for pod in _pods(lab, state)}
        self.after = {pod.meta.title: pod for pod in world.pods}
        self.described = {p.full_name: p for p in world.topology.pods}

    def run(self, named: frozenset[Key] | None = None) -> Outcome:
        """Make the change; a failure takes back the pods it added.

        Args:
            named: objects to report on; all of them if None.
        """
        running = {pod.full_name for pod in self.lab.topology.pods}
        added = [p for p in self.described.values() if p.full_name not in running]
        done: list[Pod] = []
        try:
            for pod in added:
                self.lab.add_pod(pod)
                done.append(pod)
            notes = self._objects()
        except LabError:
            for pod in done:
                self.lab.remove_pod(pod.full_name)
            raise
        # last: while the new objects are put in force, those that go still answer
        for name in sorted(running - self.described.keys()):
            self.lab.remove_pod(name)
        notes = self.world.objects.notes + unrealised(self.world.pods) + notes
        notes += tuple(
            f"namespace {name!r} is described nowhere: it has no labels but its name"
            for name in undescribed_namespaces(self.world.objects)
        )
        return Outcome(self._lines(named), notes)

    def _objects(self) -> tuple[str, ...]:
        objects = self.world.objects
        namespaces = [
            LabNamespace(item.meta.name, dict(item.meta.labels)) for item in objects.of(Namespace)
        ]
        # before the policies: they are compiled for the labels that pods have then
        self._relabel()
        unprobed = frozenset(
            pod.meta.title
            for pod in self.world.pods
            if not any(container.readiness for container in pod.spec.containers)
        )
        # a pod with a probe gets no traffic before it has passed; its containers are not even
        # running yet
        services = services_of(self.world, unprobed)
        policies = objects.policies
        self.lab.apply(self.state.semantics, self.world.cluster, *namespaces, *services, *policies)
        self._forget()
        addresses = {item.name: item.address for item in self.lab.agent.services()}
        # after the services: name servers are started with the addresses that the agent chose
        state, notes = self._containers(names_of(self.world, addresses))
        ready = self._await_ready()
        if ready != unprobed and services:
            self.lab.apply(*services_of(self.world, ready))
        states.save(self.lab, replace(state, objects=objects, problems=notes))
        return notes

    def _relabel(self) -> None:
        running = {pod.full_name: pod for pod in self.lab.topology.pods}
        for name, pod in self.described.items():
            if name in running and dict(running[name].labels) != dict(pod.labels):
                self.lab.change_pod(pod)

    def _forget(self) -> None:
        known = {rule.title for rule in self.lab.agent.policies()}
        known -= {rule.title for rule in self.world.objects.policies}
        services = {item.name for item in self.lab.agent.services()}
        services -= {service.title for service in services_of(self.world, frozenset())}
        gone = [*sorted(known), *(f"service/{name}" for name in sorted(services))]
        if gone:
            self.lab.delete(*gone)

    def _containers(self, names: dict[str, list[str]]) -> tuple[State, tuple[str, ...]]:
        restart = [
            pod
            for title, pod in self.after.items()
            if title not in self.state.pids
            or pod.spec != self.before[title].spec
            # a name server is given the cluster's names when it starts: they may be others now
            or any(item.mode == "dns" for item in listeners_of(pod))
        ]
        for pod in restart:
            pid = self.state.pids.get(pod.meta.title)
            if pid is not None:
                node = self.lab.pod(lab_name(pod.meta.title)).facts.node
                stop_containers(self.lab, node, [pid])
        pids, problems = start_containers(self.lab, restart, names)
        gone = frozenset(self.before.keys() - self.after.keys())
        return states.with_pids(self.state, pids, gone), problems

    def _await_ready(self) -> frozenset[str]:
        everybody = frozenset(self.after)
        found: list[frozenset[str]] = []

        def probe() -> bool:
            found.append(ready_pods(self.lab, self.world))
            return found[-1] == everybody

        # pods may stay unready; their services then go without them
        with contextlib.suppress(CheckFailed):
            eventually(probe, within_s=READY_WITHIN_S, every_s=0.1, what="readiness of all pods")
        return found[-1]

    def _lines(self, named: frozenset[Key] | None) -> tuple[str, ...]:
        before = {key_of(item): item for item in self.state.objects.items}
        after = {key_of(item): item for item in self.world.objects.items}
        lines = []
        for key in dict.fromkeys([*before, *after]):
            if named is not None and key not in named:
                continue
            if key not in after:
                word = "deleted"
            elif key not in before:
                word = "created"
            else:
                # the place it was read from is no part of an object
                same = replace(before[key].meta, source="") == replace(after[key].meta, source="")
                same = same and _body(before[key]) == _body(after[key])
                word = "unchanged" if same else "configured"
            lines.append(f"{key[0].lower()}/{'/'.join(filter(None, key[1:]))} {word}")
        return tuple(lines)


def _body(item: object) -> object:
    assert hasattr(item, "meta")
    return replace(item, meta=None)  # type: ignore[type-var]


def _pods(lab: Lab, state: State) -> tuple[PodObject, ...]:
    if not state.objects.items:
        return ()
    return state.world(settled(lab)).pods


def keys_of(objects: Objects) -> tuple[Key, ...]:
    """Return the keys of objects, for :func:`delete`."""
    return tuple(key_of(item) for item in objects.items)
