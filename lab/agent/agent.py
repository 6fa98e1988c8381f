"""The agent's state and what it does with it: adopt, apply, delete, add and remove pods."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lab.agent import endpoints, garbage, policies, tables
from lab.agent.descriptions import Description
from lab.agent.services import Frontend, Realiser, on_node
from lab.agent.status import AgentStatus, Collected
from lab.agent.store import State
from lab.errors import InputError
from lab.kernel.bpf import wait_for_readers
from lab.kernel.netns import NetworkNamespace
from lab.model import Namespace, Service, Topology
from lab.names import did_you_mean
from lab.plan.inventory import Inventory, NodeFacts, PodFacts, cluster, renewed
from lab.policy.compiler import Compiled, Compiler
from lab.policy.identities import RANGES, IdentityTable
from lab.policy.objects import CiliumPolicy, Cluster, NetworkPolicy, Policy, Semantics


@dataclass(slots=True)
class Timer:
    """When a node's garbage is collected next, on the monotonic clock."""

    interval_s: float = garbage.FIRST_INTERVAL_S
    due: float = 0.0


class Agent:
    """Control plane of a lab; every change is checked whole, then written, then remembered.

    Args:
        facts: of the lab.
        paths: compiled objects by name.
        namespaces: of the nodes, opened by this process.
        state: what the agent before left.
    """

    def __init__(
        self,
        facts: Inventory,
        paths: Mapping[str, Path],
        namespaces: Mapping[str, NetworkNamespace],
        state: State,
    ) -> None:
        self.facts = facts
        self.paths = paths
        self.namespaces = namespaces
        self.state = state
        self.born = time.monotonic()
        self.compiled: Compiled | None = None
        self.frontends: tuple[Frontend, ...] = ()
        last = {"identities": facts.last_identity}
        last |= {kind: n for kind, n in state.numbers.last.items() if kind in RANGES}
        self.numbers = IdentityTable(
            dict(state.identities or facts.identities), dict(state.networks), last
        )
        self.compiler = Compiler(Semantics(state.semantics), self.numbers)
        self.endpoints = endpoints.Endpoints(self)
        self.timers = {
            node.name: Timer(due=self.born + garbage.FIRST_INTERVAL_S) for node in facts.nodes
        }

    # -- taking over -----------------------------------------------------------------------------

    def adopt(self, *, again: bool = False) -> None:
        """Make the maps hold what the state says, writing differences only.

        Exchanges of programs that the agent before did not finish are done again.

        Args:
            again: the same process takes over from itself.
        """
        # before anything can go wrong: an agent that dies while it takes over counts as one
        self.state.started += not again
        # policy before services: what a service leads to is judged from its first packet on
        self._enforce(self._compile(self.state))
        self._serve(self._realise(self.state))
        for node in self.facts.nodes:
            self.endpoints.repair(node)
        self._save()

    def _note_numbers(self) -> None:
        """Write down which identities were given, before anything carries them.

        If this agent dies half way, the next one must not give them to others.
        """
        if not self.numbers.last.items() <= self.state.numbers.last.items():
            self.state.numbers.last.update(self.numbers.last)
            self.state.save()

    def _save(self) -> None:
        assert self.compiled is not None
        known = self.compiled.identities
        self.state.identities = {
            known[number].labels: number for number in set(self.compiled.identity_of.values())
        }
        self.state.networks = dict(self.compiled.networks)
        self.state.save()

    # -- objects ---------------------------------------------------------------------------------

    def apply(self, items: Iterable[Description]) -> None:
        """Realise services, policies and namespaces; one of the same name is replaced.

        Raises:
            InputError: one of them is impossible; then none has been applied.
        """
        following = self._following()
        rules: dict[str, tuple[Policy, ...]] = {}
        for item in items:
            match item:
                case Service():
                    following.services[item.title] = item
                case Namespace():
                    following.namespaces[item.name] = item
                case NetworkPolicy() | CiliumPolicy():
                    rules[item.title] = (*rules.get(item.title, ()), item)
                case Cluster():
                    following.cluster = item
                case Semantics():
                    following.semantics = item.value
        following.policies.update(rules)
        self._move_to(following)

    def delete(self, names: Iterable[str]) -> None:
        """Take back objects by title: ``service/default/web``, ``networkpolicy/default/deny``.

        Raises:
            InputError: there is none of that title; then nothing has been deleted.
        """
        following = self._following()
        gone = []
        for name in names:
            kind, _, title = name.partition("/")
            if kind == "service" and title in following.services:
                gone.append(following.services.pop(title))
            elif kind == "namespace" and title in following.namespaces:
                del following.namespaces[title]
            elif name in following.policies:
                del following.policies[name]
            else:
                known = [f"service/{title}" for title in following.services]
                known += [f"namespace/{title}" for title in following.namespaces]
                hint = did_you_mean(name, [*known, *following.policies])
                raise InputError(f"there is no {name!r}", hint=hint)
        self._move_to(following)
        # after the maps let go of them: a number or address that is free may be given to the next
        # at once
        for service in gone:
            Realiser(self.facts, following.numbers).forget(service)
        self._save()

    def _following(self) -> State:
        """Return a copy of the state to change: a refusal leaves the state itself alone."""
        state = self.state
        return replace(
            state,
            services=dict(state.services),
            namespaces=dict(state.namespaces),
            policies=dict(state.policies),
            numbers=state.numbers.copy(),
        )

    def _move_to(self, following: State) -> None:
        # everything that can refuse comes before the first write
        frontends = self._realise(following)
        self._check_room(frontends)
        compiled = self._compile(following)
        changed = following.policies != self.state.policies
        following.policy_revision += changed
        self.state = following
        self._enforce(compiled)
        self._serve(frontends)
        self._save()

    # -- services --------------------------------------------------------------------------------

    def _realise(self, state: State) -> tuple[Frontend, ...]:
        return Realiser(self.facts, state.numbers).frontends(state.services.values())

    def _check_room(self, frontends: tuple[Frontend, ...]) -> None:
        for node in self.facts.nodes:
            tables.check_room(node.name, self._tables(frontends, node, maglev=False))

    def _tables(
        self, frontends: tuple[Frontend, ...], node: NodeFacts, *, maglev: bool
    ) -> tables.Tables:
        return tables.build(on_node(frontends, node), node.name, maglev_tables=maglev)

    def _serve(self, frontends: tuple[Frontend, ...]) -> None:
        self.frontends = frontends
        maglev = self.facts.topology.options.lb_algorithm == "maglev"
        for node in self.facts.nodes:
            tables.reconcile(node.name, self._tables(frontends, node, maglev=maglev))

    # -- policy ----------------------------------------------------------------------------------

    def cluster(self, state: State) -> Cluster:
        """Return pods and namespaces as policies see them."""
        plain = cluster(self.facts)
        given = {pod.title: pod for pod in state.cluster.workloads} if state.cluster else {}
        namespaces: dict[str, Mapping[str, str]] = {}
        if state.cluster:
            namespaces.update(state.cluster.namespaces)
        namespaces.update({item.name: item.labels for item in state.namespaces.values()})
        workloads = tuple(
            replace(
                pod,
                ports=given[pod.title].ports,
                service_account=given[pod.title].service_account,
            )
            if pod.title in given
            else pod
            for pod in plain.workloads
        )
        return replace(plain, namespaces=namespaces, workloads=workloads)

    def _compile(self, state: State) -> Compiled:
        meant = Semantics(state.semantics)
        if meant is not self.compiler.semantics:
            self.compiler = self.compiler.meaning(meant)
        rules = (rule for rules in state.policies.values() for rule in rules)
        return self.compiler.compile(self.cluster(state), rules)

    def _enforce(self, compiled: Compiled) -> None:
        """Write a compilation: entries before the identities they name, removals last."""
        self._note_numbers()
        before, self.compiled = self.compiled, compiled
        changed = [
            pod
            for pod in self.facts.pods
            if before is None or self._policy(before, pod) is not self._policy(compiled, pod)
        ]
        replaced = [self.endpoints.allow(pod) for pod in changed]
        # now that every map knows the new identities, packets may begin to carry them
        self._publish_identities(before, compiled)
        for pod in self.facts.pods:
            if before and self.identity(pod, before) != self.identity(pod):
                self.endpoints.regenerate(pod, "its identity changed")
        if any(replaced):
            wait_for_readers()
        for pod in changed:
            self.endpoints.disallow(pod)

    def _policy(self, compiled: Compiled, pod: PodFacts) -> object:
        return compiled.endpoints.get(title(pod))

    def _publish_identities(self, before: Compiled | None, compiled: Compiled) -> None:
        identities = {pod.name: self.identity(pod) for pod in self.facts.pods}
        # a policy's /32 of a pod or node must not hide who that is
        owned = set(endpoints.own_networks(self.facts))
        networks = {k: n for k, n in compiled.networks.items() if k not in owned}
        stale = [k for k in before.networks if k not in networks] if before else []
        for node in self.facts.nodes:
            rows = [policies.endpoint_row(pod, identities[pod.name]) for pod in node.pods]
            policies.write(node.name, "cilium_lxc", rows)
            wanted = policies.ipcache_rows(self.facts, node.name, identities, networks)
            policies.write(node.name, "cilium_ipcache", wanted)
            keys = [policies.network_key(k) for k in stale if k not in owned]
            policies.delete(node.name, "cilium_ipcache", keys)

    def identity(self, pod: PodFacts, compiled: Compiled | None = None) -> int:
        """Return a pod's security identity: reserved by its labels, or allocated."""
        known = compiled or self.compiled
        # reserved numbers mean the same in every cluster: nothing allocates them
        if any(label.startswith("reserved:") for label in pod.labels) or known is None:
            return pod.identity
        return known.identity_of.get(title(pod), pod.identity)

    # -- pods ------------------------------------------------------------------------------------

    def change_pods(self, topology: Topology) -> None:
        """Take over a topology with other pods: new ones get programs, gone ones lose them.

        Raises:
            LabError: a new pod could not be attached; the topology stays as it was.
        """
        old, new = self.facts, renewed(self.facts, topology)
        names = {pod.name for pod in new.pods}
        had = {pod.name for pod in old.pods}
        self.facts = new
        added = [pod for pod in new.pods if pod.name not in had]
        try:
            compiled = self._compile(self.state)
            self._note_numbers()
            frontends = self._realise(self.state)
            # a selector may give every service one backend more
            self._check_room(frontends)
            for pod in added:
                self.endpoints.prepare(pod, compiled.endpoints[title(pod)].entries)
                self.endpoints.attach(pod, compiled.identity_of[title(pod)])
        # KeyboardInterrupt as well: a half-attached pod would be in no list and stay for ever
        except BaseException:
            for pod in added:
                self.endpoints.remove(new, pod)
            self.facts = old
            raise
        for pod in old.pods:
            if pod.name not in names:
                self.endpoints.remove(old, pod)
        self._enforce(compiled)
        self._serve(frontends)
        self._save()

    # -- garbage ---------------------------------------------------------------------------------

    def collect(self, node: NodeFacts) -> Collected:
        """Remove what has expired on a node, and say when the next time is."""
        now = garbage.clock_s()
        flows = garbage.collect_conntrack(node.name, now)
        nat = garbage.collect_nat(node.name, now)
        timer = self.timers[node.name]
        timer.interval_s = garbage.next_interval_s(timer.interval_s, flows)
        timer.due = time.monotonic() + timer.interval_s
        return Collected(
            node=node.name,
            ct_seen=flows.seen,
            ct_deleted=flows.deleted,
            nat_seen=nat.seen,
            nat_deleted=nat.deleted,
            next_s=timer.interval_s,
        )

    def idle(self) -> float:
        """Do what is due; return the seconds until something is."""
        # one at a time, so that a client waits for one at most
        if self.endpoints.write_one_state():
            return 0.0
        now = time.monotonic()
        for node in self.facts.nodes:
            if self.timers[node.name].due <= now:
                self.collect(node)
        return min(timer.due for timer in self.timers.values()) - time.monotonic()

    def status(self, pid: int) -> AgentStatus:
        """Return what the agent says of itself."""
        return AgentStatus(
            pid=pid,
            started=self.state.started,
            up_s=time.monotonic() - self.born,
            endpoints=len(self.facts.pods) + len(self.facts.nodes),
            services=len(self.state.services),
            policies=len(self.state.policies),
            policy_revision=self.state.policy_revision,
        )


def title(pod: PodFacts) -> str:
    """Return ``namespace/pod``, the name policies know a pod by."""
    return f"{pod.namespace}/{pod.name.rpartition('/')[2]}"
