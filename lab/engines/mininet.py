"""The Mininet engine: the same plan, its hosts and links made by Mininet's own objects.

Every namespace is a Mininet node (a shell behind ``mnexec``), every veth pair between two of
them a Mininet link; everything else is the default engine's. Mininet's own set-up of the
machine is kept out: no controller, no Open vSwitch, no ``mn -c``, no change of the host's
sysctls (``Mininet.init`` would write ten of them).

Needs: Debian's ``mininet`` package (Python 3.11).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.engines.netns import NetnsEngine
from lab.errors import PrerequisiteError
from lab.kernel.netns import NetworkNamespace
from lab.plan import steps
from lab.plan.steps import Step

try:
    from mininet.cli import CLI
    from mininet.link import Link
    from mininet.log import setLogLevel
    from mininet.net import Mininet
    from mininet.node import Host, Node, Switch
    from mininet.topo import Topo
except ImportError as error:
    raise PrerequisiteError(
        f"Mininet cannot be imported: {error}", hint="apt install mininet, or ./lab.sh does it"
    ) from None


class LabTopo(Topo):  # type: ignore[misc]
    """The topology as Mininet sees it, filled while the plan runs, for ``mn``'s own tools."""


class UnderlayBridge(Switch):  # type: ignore[misc]
    """The underlay: a Linux bridge in a namespace of its own, without controller.

    The bridge device and its ports are made by the plan, so starting it has nothing to do.
    """

    def start(self, controllers: list[Any]) -> None:
        """Do nothing: the plan has brought the bridge up already."""
        del controllers

    def stop(self, deleteIntfs: bool = True) -> None:  # noqa: N803 (Mininet's name)
        """End the shell; the kernel removes the bridge with the namespace."""
        del deleteIntfs
        self.terminate()


class ClusterNode(Node):  # type: ignore[misc]
    """A Kubernetes node: a Mininet node that is neither host nor switch."""


class PlannedLink(Link):  # type: ignore[misc]
    """A Mininet link whose interfaces have the names, indices and MACs of the plan."""

    def __init__(self, node1: Any, node2: Any, step: steps.AddVeth, **parameters: Any) -> None:
        self.step = step
        # Mininet.addLink has drawn random MACs already; the plan's replace them.
        names = {"intfName1": step.device, "intfName2": step.peer}
        addresses = {"addr1": step.mac, "addr2": step.peer_mac}
        super().__init__(node1, node2, **{**parameters, **names, **addresses})

    def makeIntfPair(self, *names: Any, **options: Any) -> None:  # noqa: N802 (Mininet's name)
        """Make the pair as planned; the maps of the datapath hold its interface indices."""
        del options
        step, (node1, node2) = self.step, names[4:6]
        said = node1.cmd(
            f"ip link add name {step.device} index {step.index} address {step.mac} "
            f"mtu {step.mtu} type veth peer name {step.peer} index {step.peer_index} "
            f"address {step.peer_mac} mtu {step.mtu} netns {node2.pid}"
        )
        if said.strip():
            raise PrerequisiteError(
                f"veth pair {step.device}-{step.peer}: {said.strip()}", hint="see `lab doctor`"
            )

    def stop(self) -> None:
        """Do nothing: deleting a veth takes 25 ms, and it goes with its namespace anyway."""


class MininetEngine(NetnsEngine):
    """Realises namespaces and links as Mininet objects.

    Attributes:
        net: the ``Mininet`` object; its hosts are the pods.
    """

    def __init__(self, objects: Mapping[str, Path]) -> None:
        super().__init__(objects)
        setLogLevel("warning")
        # Keeps Mininet.init() from changing the machine's limits and sysctls.
        Mininet.inited = True
        self.net = Mininet(topo=None, controller=None, switch=UnderlayBridge, build=False)
        self.net.topo = LabTopo()

    def make_namespace(self, step: steps.AddNamespace) -> NetworkNamespace:
        """Make a Mininet node and adopt its network namespace."""
        if step.role == "underlay":
            # Mininet takes the number from a name like s1, and refuses another name without one
            node = self.net.addSwitch(step.where, cls=UnderlayBridge, inNamespace=True, dpid="1")
            self.net.topo.addSwitch(step.where)
        else:
            cls = Host if step.role == "pod" else ClusterNode
            # None, or it would hand out addresses of its own beside the plan's
            node = self.net.addHost(step.where, cls=cls, ip=None)
            self.net.topo.addHost(step.where)
        return NetworkNamespace.adopt(step.where, f"/proc/{node.pid}/ns/net")

    def process_of(self, name: str) -> int | None:
        """Return the process id of a node's shell."""
        return int(self.net[name].pid)

    def entered_by_shell(self, step: steps.AddNamespace) -> None:
        """Let the node's shell see its node's BPF file system."""
        if step.node:
            self.net[step.where].cmd(f"mount --bind {steps.bpffs(step.node)} /sys/fs/bpf")

    def add_veth(self, step: steps.AddVeth) -> None:
        """Make a Mininet link; netlink makes a pair within one node, which is none between two."""
        if step.where == step.peer_where:
            super().add_veth(step)
            return
        self.net.addLink(
            self.net[step.where], self.net[step.peer_where], cls=PlannedLink, step=step
        )
        self.net.topo.addLink(step.where, step.peer_where)

    def _configure(self, step: Step, here: NetworkNamespace) -> None:
        super()._configure(step, here)
        if isinstance(step, steps.AddAddress) and step.device == "eth0":
            # `client ping server` at the prompt replaces names by addresses.
            interface = self.net[step.where].nameToIntf["eth0"]
            interface.ip, interface.prefixLen = step.address.split("/")

    def prompt(self, fds: tuple[int, int, int]) -> None:
        """Be Mininet's prompt on a terminal until the user leaves; ends the calling process."""
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        # Ctrl-C ends what runs at the prompt, not the prompt
        signal.signal(signal.SIGINT, signal.default_int_handler)
        setLogLevel("output" if not sys.stdin.isatty() else "info")
        CLI(self.net)

    def close(self) -> None:
        """End the shells and let go of everything."""
        super().close()
        for node in [*self.net.hosts, *self.net.switches]:
            node.terminate()
        self.net.hosts.clear()
        self.net.switches.clear()


def engine(objects: Mapping[str, Path]) -> MininetEngine:
    """Return the engine."""
    return MininetEngine(objects)
