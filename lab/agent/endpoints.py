"""Endpoints: their programs, policy maps and state directories, over their whole life."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lab.agent import garbage, policies, programs
from lab.agent.status import EndpointStatus
from lab.datapath import objects
from lab.errors import InputError, KernelError
from lab.kernel import link
from lab.kernel.bpfmap import BpfMap, get_pinned
from lab.layouts.attach import POLICY
from lab.layouts.core import EndpointKey
from lab.names import did_you_mean
from lab.plan.inventory import CILIUM_HOST_INDEX, Inventory, NodeFacts, PodFacts
from lab.policy.entries import EntryKey
from lab.policy.objects import Direction

if TYPE_CHECKING:
    from lab.agent.agent import Agent

HOST_DEVICES = ("cilium_host", "cilium_net", "eth0", "eth0_xdp", "cilium_vxlan")
"""Devices whose programs belong to the node's own endpoint, where they exist."""


def own_networks(facts: Inventory) -> Iterator[str]:
    """Yield the /32 networks whose identity is the lab's own: pods and nodes."""
    for node in facts.nodes:
        yield f"{node.address}/32"
        yield f"{node.router}/32"
        for pod in node.pods:
            yield f"{pod.address}/32"


class Endpoints:
    """All endpoints of a lab; the agent's programs and policy maps go through here."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._of = agent.facts
        self._cache: dict[str, dict[str, programs.Recipe]] = {}
        # written in idle time: a lab is up before its state directories are
        self._without_state = [(node.name, node.host_endpoint_id) for node in agent.facts.nodes]
        self._without_state += [(pod.node, pod.endpoint_id) for pod in agent.facts.pods]

    # -- finding ---------------------------------------------------------------------------------

    def find(self, node: str, endpoint: str) -> PodFacts | NodeFacts:
        """Return the pod or node of an endpoint given by id or name.

        Raises:
            InputError: the node has no such endpoint.
        """
        facts = self.agent.facts.node(node)
        if endpoint in (str(facts.host_endpoint_id), node):
            return facts
        for pod in facts.pods:
            if endpoint in (str(pod.endpoint_id), pod.name):
                return pod
        known = {pod.name for pod in facts.pods} | {str(pod.endpoint_id) for pod in facts.pods}
        raise InputError(
            f"node {node!r} has no endpoint {endpoint!r}", hint=did_you_mean(endpoint, known)
        )

    def all(self) -> Iterator[EndpointStatus]:
        """Yield every endpoint, node by node, the node's own first."""
        for node in self.agent.facts.nodes:
            yield self._node_status(node)
            for pod in node.pods:
                yield self.status(pod)

    def status(self, pod: PodFacts) -> EndpointStatus:
        """Return what is known of a pod's endpoint."""
        from lab.agent.agent import title

        compiled = self.agent.compiled
        number = self.agent.identity(pod)
        isolated = compiled.endpoints[title(pod)].isolated if compiled else {}
        known = compiled.identities.get(number) if compiled else None
        following = programs.state_directory(pod.node, f"{pod.endpoint_id}_next")
        return EndpointStatus(
            id=pod.endpoint_id,
            node=pod.node,
            pod=pod.name,
            address=str(pod.address),
            identity=number,
            labels=known.labels if known else pod.labels,
            ingress=Direction.INGRESS in isolated,
            egress=Direction.EGRESS in isolated,
            state="regenerating" if following.exists() else "ready",
            revision=self.agent.state.revisions.get(_key(pod.node, pod.endpoint_id), 0),
            device=pod.lxc,
            ifindex=pod.lxc_index,
            directory=f"/run/cilium/{programs.STATE}/{pod.endpoint_id}",
        )

    def _node_status(self, node: NodeFacts) -> EndpointStatus:
        return EndpointStatus(
            id=node.host_endpoint_id,
            node=node.name,
            pod="",
            address=str(node.router),
            identity=1,
            labels=("reserved:host=",),
            ingress=False,
            egress=False,
            state="ready",
            revision=self.agent.state.revisions.get(_key(node.name, node.host_endpoint_id), 0),
            device="cilium_host",
            ifindex=CILIUM_HOST_INDEX,
            directory=f"/run/cilium/{programs.STATE}/{node.host_endpoint_id}",
        )

    # -- policy maps -----------------------------------------------------------------------------

    def _pin(self, pod: PodFacts) -> Path | None:
        pin = policies.policy_pin(pod.node, pod.endpoint_id)
        fd = get_pinned(pin)
        if fd is None:
            return None
        BpfMap(fd).close()
        return pin

    def allow(self, pod: PodFacts) -> bool:
        """Write the entries of a pod's policy that are not in its map yet.

        Returns:
            Whether some take the place of others: those may go (`disallow`) only when programs
            have left what they are in, see `policies.begin`.
        """
        pin = self._pin(pod)
        if not pin or not self.agent.compiled:
            return False
        entries = self._entries(pod)
        absents = policies.absent_pin(pod.node)
        found = policies.begin(pin, absents, pod.endpoint_id, entries)
        if found.written:
            self.log(pod.node, pod.endpoint_id, f"policy: {found.written} entries written")
        return bool(found.written and found.stale)

    def disallow(self, pod: PodFacts) -> None:
        """Delete the entries of a pod's map that its policy does not have."""
        pin = self._pin(pod)
        if pin and self.agent.compiled:
            entries = self._entries(pod)
            absents = policies.absent_pin(pod.node)
            removed = policies.finish(pin, absents, pod.endpoint_id, entries)
            if removed:
                self.log(pod.node, pod.endpoint_id, f"policy: {removed} entries removed")

    def _entries(self, pod: PodFacts) -> dict[EntryKey, bool]:
        from lab.agent.agent import title

        assert self.agent.compiled is not None
        return dict(self.agent.compiled.endpoints[title(pod)].entries)

    # -- programs --------------------------------------------------------------------------------

    def _known(self, node: NodeFacts) -> dict[str, programs.Recipe]:
        # a node's recipes are worked out together, once for each state of the lab
        if self._of is not self.agent.facts:
            self._of, self._cache = self.agent.facts, {}
        if node.name not in self._cache:
            self._cache[node.name] = programs.recipes(self.agent.facts, node)
        return self._cache[node.name]

    def _recipe(self, pod: PodFacts, identity: int | None = None) -> programs.Recipe:
        recipe = self._known(self.agent.facts.node(pod.node))[pod.lxc]
        return recipe.with_identity(self.agent.identity(pod) if identity is None else identity)

    def _recipes(self, target: PodFacts | NodeFacts) -> list[programs.Recipe]:
        if isinstance(target, PodFacts):
            return [self._recipe(target)]
        known = self._known(target)
        return [known[device] for device in HOST_DEVICES if device in known]

    def regenerate(self, target: PodFacts | NodeFacts, why: str) -> int:
        """Load an endpoint's programs anew and exchange them under load; return its revision.

        Raises:
            LabError: the new programs were refused; the old ones stay in charge.
        """
        if isinstance(target, PodFacts):
            node, number = target.node, target.endpoint_id
        else:
            node, number = target.name, target.host_endpoint_id
        recipes = self._recipes(target)
        self._exchange(recipes, number)
        revisions = self.agent.state.revisions
        revisions[_key(node, number)] = revisions.get(_key(node, number), 0) + 1
        self.agent.state.save()
        self.log(node, number, f"regenerated: {why}; revision {revisions[_key(node, number)]}")
        return revisions[_key(node, number)]

    def _exchange(self, recipes: list[programs.Recipe], number: int) -> None:
        # written first, accepted last: what is called NAME is always what runs
        programs.write_state(recipes, number, self.agent.paths)
        node = recipes[0].load.where
        try:
            for recipe in recipes:
                programs.exchange(recipe, self.agent.paths, self.agent.namespaces[node])
        except BaseException as error:
            programs.forget_next(node, number)
            self.log(node, number, f"regeneration failed: {error}")
            raise
        programs.accept_state(node, number)

    def repair(self, node: NodeFacts) -> None:
        """Do again what an earlier agent was killed in the middle of."""
        programs.forget_staged(node.name)
        half = programs.unfinished(node.name)
        if not half:
            return
        for device, recipe in programs.recipes(self.agent.facts, node).items():
            pins = {f"{pin}_next" for _, pin in recipe.load.pins}
            if pins & set(half):
                pod = next((pod for pod in node.pods if pod.lxc == device), None)
                number = pod.endpoint_id if pod else node.host_endpoint_id
                self._exchange([self._recipe(pod) if pod else recipe], number)
                self.log(node.name, number, "regenerated: the agent before was interrupted")
        # what is left belongs to devices that are gone
        for name in programs.unfinished(node.name):
            Path(programs.globals_of(node.name), name).unlink(missing_ok=True)

    # -- life ------------------------------------------------------------------------------------

    def prepare(self, pod: PodFacts, wanted: Mapping[EntryKey, bool]) -> None:
        """Make and fill a new pod's policy map before its first packet."""
        # the loader takes this map over by its pin
        pin = policies.policy_pin(pod.node, pod.endpoint_id)
        spec = objects.maps_of(self.agent.paths["bpf_lxc"]).get(POLICY)
        if spec is not None:
            with BpfMap.create(POLICY, spec) as fresh:
                fresh.pin(pin)
            absents = policies.absent_pin(pod.node)
            policies.begin(pin, absents, pod.endpoint_id, wanted)
            policies.finish(pin, absents, pod.endpoint_id, wanted)

    def attach(self, pod: PodFacts, identity: int) -> None:
        """Load and attach a new pod's programs.

        Raises:
            LabError: the programs were refused, or the pod's device is not there.
        """
        recipe = self._recipe(pod, identity)
        self._exchange([recipe], pod.endpoint_id)
        self.log(pod.node, pod.endpoint_id, f"created for pod {pod.name}, identity {identity}")

    def remove(self, facts: Inventory, pod: PodFacts) -> None:
        """Take a pod's endpoint out of the maps, its device and state directory away."""
        # unknown to everybody before its programs go: nothing is sent to it any more
        for node in facts.nodes:
            key = policies.network_key(f"{pod.address}/32")
            policies.delete(node.name, "cilium_ipcache", [key])
        policies.delete(pod.node, "cilium_lxc", [EndpointKey(ip4=pod.address).pack()])
        recipe = programs.recipes(facts, facts.node(pod.node))[pod.lxc]
        programs.withdraw(recipe, pod.endpoint_id)
        policies.forget(policies.absent_pin(pod.node), pod.endpoint_id)
        # the device may have gone with its pod's namespace already
        with contextlib.suppress(KernelError):
            link.delete(self.agent.namespaces[pod.node], pod.lxc_index)
        for node in facts.nodes:
            garbage.forget_address(node.name, pod.address)
        programs.forget_state(pod.node, pod.endpoint_id)
        self.agent.state.revisions.pop(_key(pod.node, pod.endpoint_id), None)

    # -- state directories and logs --------------------------------------------------------------

    def write_one_state(self) -> bool:
        """Write the state directory of one endpoint that has none yet; False if all have."""
        while self._without_state:
            node, number = self._without_state.pop()
            facts = self.agent.facts.node(node)
            targets = {pod.endpoint_id: pod for pod in facts.pods}
            target = facts if number == facts.host_endpoint_id else targets.get(number)
            # it may have gone, or been regenerated, since the list was made
            if target and not programs.state_directory(node, number).exists():
                programs.write_state(self._recipes(target), number, self.agent.paths)
                programs.accept_state(node, number)
                self.log(node, number, f"restored for {target.name}")
                return True
        return False

    def log(self, node: str, number: int, text: str) -> None:
        """Add a line to an endpoint's log: monotonic clock in seconds, then the text."""
        folder = programs.state_directory(node, number)
        if folder.is_dir():
            with (folder / "log").open("a") as log:
                log.write(f"{garbage.clock_s():.6f} {text}\n")

    def read_log(self, node: str, number: int) -> str:
        """Return an endpoint's log, oldest line first."""
        path = programs.state_directory(node, number) / "log"
        return path.read_text() if path.exists() else ""


def _key(node: str, number: int) -> str:
    return f"{node} {number}"
