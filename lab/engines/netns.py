"""The default engine: every step of a plan in process, without a fork per object."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lab.engines.datapath import DatapathInstaller
from lab.errors import InputError, KernelError, TopologyError
from lab.kernel import link, mounts, process
from lab.kernel.netns import NetworkNamespace
from lab.plan import steps
from lab.plan.steps import Step


class NetnsEngine:
    """Runs steps and holds what they made.

    Args:
        objects: compiled BPF objects by name.

    Attributes:
        namespaces: by name; each holds the file descriptors that keep it alive.
        datapath: what was loaded and attached.
        make_bpffs: called with a node's name before its first map.
    """

    def __init__(self, objects: Mapping[str, Path]) -> None:
        self.namespaces: dict[str, NetworkNamespace] = {}
        self.datapath = DatapathInstaller(objects)
        self._indices: dict[tuple[str, str], int] = {}
        self._links_to: dict[str, list[tuple[str, int]]] = {}
        self.on_namespace: Callable[[steps.AddNamespace, NetworkNamespace], None] = _nothing
        self.make_bpffs: Callable[[str], None] = mounts.make_bpffs

    def run(self, plan: Iterable[Step]) -> None:
        """Run steps in order.

        Raises:
            KernelError: a step was refused; the steps before it stay until :meth:`close`.
        """
        for step in plan:
            self.step(step)

    def step(self, step: Step) -> None:
        """Run one step."""
        if isinstance(step, steps.AddNamespace):
            self._add_namespace(step)
            return
        here = self.namespaces[step.where]
        if isinstance(step, steps.SetSysctl):
            here.set_sysctl(step.key, step.value, if_there=step.if_there)
        elif isinstance(step, steps.AddVeth):
            self.add_veth(step)
            self._indices[step.where, step.device] = step.index
            self._indices[step.peer_where, step.peer] = step.peer_index
            if step.peer_where != step.where:
                # by the end that is not in the namespace: it can still be deleted when the other is
                # dying
                self._links_to.setdefault(step.peer_where, []).append((step.where, step.index))
        elif isinstance(step, steps.AddBridge):
            link.add_bridge(here, step.device, step.index, step.mac, step.mtu)
            self._indices[step.where, step.device] = step.index
        elif isinstance(step, steps.AddVxlan):
            link.add_vxlan(here, step.device, step.index, step.mac, step.mtu, step.port)
            self._indices[step.where, step.device] = step.index
        else:
            self._configure(step, here)

    def _configure(self, step: Step, here: NetworkNamespace) -> None:
        match step:
            case steps.SetMaster():
                master = self.index(step.where, step.master)
                link.set_master(here, self.index(step.where, step.device), master)
            case steps.SetUp():
                link.set_up(here, self.index(step.where, step.device), arp=step.arp)
            case steps.AddAddress():
                index = self.index(step.where, step.device)
                link.add_address(here, index, step.address, step.scope)
            case steps.AddRoute():
                link.add_route(
                    here,
                    self.index(step.where, step.device),
                    step.destination,
                    via=step.via,
                    source=step.source,
                    scope=step.scope,
                    mtu=step.mtu,
                    table=step.table,
                    kind=step.kind,
                )
            case steps.AddRule():
                link.add_rule(
                    here, step.priority, step.table, fwmark=step.fwmark, fwmask=step.fwmask
                )
            case steps.DeleteRule():
                link.delete_rule(here, step.priority)
            case steps.AddFirewallRule():
                # iptables changes the namespace that it is started in
                with here.entered():
                    process.run(step.argv)
            case steps.LimitRate():
                link.limit_rate(here, self.index(step.where, step.device), step.rate_mbit)
            case _:
                self.datapath.run(step, here)

    def prepare(self, plan: Sequence[Step]) -> None:
        """Start what a plan will need later and can be done meanwhile: mounts, BPF loads."""
        if any(isinstance(step, steps.MakeMaps) for step in plan):
            self.datapath.prepare(plan, self.make_bpffs)

    def finish(self) -> None:
        """Wait for what :meth:`prepare` and the steps started; one thread is left."""
        self.datapath.finish()

    def index(self, where: str, device: str) -> int:
        """Return the interface index that the plan gave a device."""
        return 1 if device == "lo" else self._indices[where, device]

    def make_namespace(self, step: steps.AddNamespace) -> NetworkNamespace:
        """Make the namespace of a step; other engines do it their way."""
        return NetworkNamespace.create(step.where)

    def process_of(self, name: str) -> int | None:
        """Return the process that keeps a namespace, if the engine uses one."""
        del name
        return None

    def entered_by_shell(self, step: steps.AddNamespace) -> None:
        """Adjust a namespace's own process to its node; nothing to do without one."""

    def prompt(self, fds: tuple[int, int, int]) -> None:
        """Be an interactive prompt on a terminal; this engine has none.

        Raises:
            InputError: always.
        """
        del fds
        raise InputError("this engine has no prompt", hint="use --engine mininet")

    def add_veth(self, step: steps.AddVeth) -> None:
        """Make the veth pair of a step; other engines do it their way."""
        link.add_veth(
            self.namespaces[step.where],
            self.namespaces[step.peer_where],
            device=(step.device, step.index, step.mac),
            peer=(step.peer, step.peer_index, step.peer_mac),
            mtu=step.mtu,
        )

    def _add_namespace(self, step: steps.AddNamespace) -> None:
        namespace = self.make_namespace(step)
        self.namespaces[step.where] = namespace
        # 1 is lo in every namespace, and down when it is new
        link.set_up(namespace, 1)
        self.on_namespace(step, namespace)

    def require_namespace(self, name: str) -> None:
        """Refuse to go on without a pod's namespace.

        Raises:
            TopologyError: somebody who asked at the same time has removed it.
        """
        if name not in self.namespaces:
            raise TopologyError(
                f"pod {name!r} has just been removed", hint="there is nothing left to do"
            )

    def remove_namespace(self, name: str) -> None:
        """Remove a namespace, and first its links to others: their names are free at once.

        The kernel takes a namespace apart some time after its last reference; the other end of
        a veth pair would stay until then.
        """
        for where, index in self._links_to.pop(name, ()):
            if where in self.namespaces:
                # already gone is fine: the agent takes an endpoint's device away first
                with contextlib.suppress(KernelError):
                    link.delete(self.namespaces[where], index)
        self.namespaces.pop(name).close()
        for where, device in [key for key in self._indices if key[0] == name]:
            del self._indices[where, device]

    def close(self) -> None:
        """Let go of everything, newest first; idempotent."""
        self.datapath.close()
        while self.namespaces:
            self.namespaces.popitem()[1].close()


def _nothing(step: steps.AddNamespace, namespace: NetworkNamespace) -> None:
    del step, namespace


def engine(objects: Mapping[str, Path]) -> NetnsEngine:
    """Return the engine."""
    return NetnsEngine(objects)
