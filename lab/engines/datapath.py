"""The datapath's steps, run in process: maps, loads in the background, attachment."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lab.datapath import objects
from lab.datapath.objects import LoadedObject
from lab.datapath.render import config_of
from lab.kernel import bpfattach, tcx
from lab.kernel.bpf import Program
from lab.kernel.bpfmap import BpfMap
from lab.kernel.netns import NetworkNamespace
from lab.plan import steps
from lab.plan.steps import Step

LOADERS = 2
"""Loads that run at once: the verifier runs outside Python's lock, one per core of a small VM."""

DIRECTIONS = {
    "ingress": bpfattach.Direction.INGRESS,
    "egress": bpfattach.Direction.EGRESS,
}


XDP_MODES = {
    "xdpgeneric": bpfattach.XdpMode.GENERIC,
    "xdpdrv": bpfattach.XdpMode.NATIVE,
}


def attach_tc(step: steps.AttachTc, program: Program, ifindex: int) -> None:
    """Attach, or atomically replace, a step's program at its device, whose index is given.

    Raises:
        KernelError: no such interface in the calling thread's network namespace.
    """
    side = DIRECTIONS[step.direction]
    if not (step.tcx and tcx.attach(program, ifindex, side)):
        bpfattach.attach_tc(program, ifindex, side)


class DatapathInstaller:
    """Runs the datapath's steps of all nodes and keeps what they loaded.

    Args:
        paths: compiled objects by name.

    Attributes:
        load_seconds: time each device's load took, mostly the verifier's, by ``NODE/DEVICE``.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths
        self.loaded: dict[tuple[str, str], LoadedObject] = {}
        self._pending: dict[tuple[str, str], Future[LoadedObject]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self.load_seconds: dict[str, float] = {}

    def prepare(self, plan: Iterable[Step], make_bpffs: Callable[[str], None]) -> None:
        """Begin all loads of a plan: programs need a node's maps, not its devices."""
        todo = tuple(plan)
        for step in todo:
            if isinstance(step, steps.MakeMaps):
                # the loaders pin into it: it must be there before the first of them runs
                make_bpffs(step.where)
        self._pool = ThreadPoolExecutor(LOADERS)
        for step in todo:
            if isinstance(step, steps.LoadObject):
                self._pending[step.where, step.instance] = self._pool.submit(self._load, step)

    def finish(self) -> None:
        """Wait for the loaders; afterwards the process has one thread again."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def run(self, step: Step, here: NetworkNamespace) -> None:
        """Run one step of the datapath.

        Raises:
            LabError: the build, the verifier or the kernel refused it.
        """
        match step:
            case steps.MakeMaps():
                paths = [self.paths[name] for name in step.objects]
                objects.ensure_maps(
                    Path(steps.bpffs(step.where)), paths, config={"ct_tcp_max": step.ct_tcp_max}
                )
            case steps.LoadObject():
                self._take(step)
            case steps.AttachTc():
                self._attach(step, here)
            case steps.AttachXdp():
                program = self.loaded[step.where, step.instance].loaded.programs[step.program]
                with here.entered():
                    index = socket.if_nametoindex(step.device)
                    bpfattach.attach_xdp(program, index, XDP_MODES[step.mode])
            case steps.Publish():
                # Attached and pinned: the kernel keeps it from now on, without our descriptors.
                with self.loaded.pop((step.where, step.instance)) as loaded:
                    loaded.publish()
            case steps.UpdateMap():
                with BpfMap.from_pin(Path(steps.globals_dir(step.where), step.map)) as pinned:
                    pinned.update(bytes.fromhex(step.key), bytes.fromhex(step.value))
            case _:
                raise NotImplementedError(type(step).__name__)

    def _load(self, step: steps.LoadObject) -> LoadedObject:
        begun = time.perf_counter()
        loaded = objects.load(
            self.paths[step.object],
            config=config_of(step),
            bpffs=Path(steps.bpffs(step.where)),
            pins=dict(step.pins),
        )
        self.load_seconds[f"{step.where}/{step.instance}"] = time.perf_counter() - begun
        return loaded

    def _take(self, step: steps.LoadObject) -> None:
        key = step.where, step.instance
        future = self._pending.pop(key, None)
        old = self.loaded.get(key)
        # loads that no plan announced (a pod added later) happen now
        self.loaded[key] = future.result() if future else self._load(step)
        if old is not None:
            old.close()

    def _attach(self, step: steps.AttachTc, here: NetworkNamespace) -> None:
        program = self.loaded[step.where, step.instance].loaded.programs[step.program]
        with here.entered():
            attach_tc(step, program, socket.if_nametoindex(step.device))

    def close(self) -> None:
        """Let go of all programs and maps; what is attached goes with its namespace."""
        # first the loaders: they would go on loading into what is let go of here
        self.finish()
        for loaded in self.loaded.values():
            loaded.close()
        self.loaded.clear()
