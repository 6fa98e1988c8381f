"""Programs of one device exchanged under load, and the state directory that shows what was loaded.

A device's programs come from the same steps that the plan loaded them by: object, constants and
private maps. Order: a full tail-call map first, then the entry programs atomically, then the
endpoint's slot in ``cilium_call_policy``, and the pins of the private maps last. Needs root.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from lab.datapath import objects
from lab.datapath.render import config_of, config_value
from lab.engines.datapath import XDP_MODES, attach_tc
from lab.errors import KernelError
from lab.kernel import bpfattach
from lab.kernel.bpf import wait_for_readers
from lab.kernel.bpfmap import BpfMap, get_pinned
from lab.kernel.netns import NetworkNamespace
from lab.layouts.attach import CALLS
from lab.plan.datapath import datapath_steps
from lab.plan.inventory import Inventory, NodeFacts
from lab.plan.steps import NODES_DIR, AttachTc, AttachXdp, LoadObject, bpffs

STATE = "state"
"""Folder of the endpoints' state directories below a node's ``/run/cilium``."""

HEADER = "ep_config.h"
MAP_LIST = "maps"

OBJECT_NAMES = {"cilium_net": "bpf_host_cilium_net", "eth0": "bpf_netdev_eth0"}
"""Files of objects that are loaded more than once for the node (seed 004, §2.3)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one device's programs are loaded and where they go."""

    load: LoadObject
    attach: tuple[AttachTc | AttachXdp, ...]

    def with_identity(self, identity: int) -> Recipe:
        """Return the recipe for an endpoint whose labels have another identity now."""
        config = {**dict(self.load.config), "security_identity": identity}
        return replace(self, load=replace(self.load, config=tuple(config.items())))


def recipes(facts: Inventory, node: NodeFacts) -> dict[str, Recipe]:
    """Return the recipes of a node's devices by their names."""
    loads: dict[str, LoadObject] = {}
    points: dict[str, list[AttachTc | AttachXdp]] = {}
    for step in datapath_steps(facts, node):
        if isinstance(step, LoadObject):
            loads[step.instance] = step
        elif isinstance(step, AttachTc | AttachXdp):
            points.setdefault(step.instance, []).append(step)
    return {name: Recipe(step, tuple(points.get(name, ()))) for name, step in loads.items()}


def exchange(recipe: Recipe, paths: Mapping[str, Path], here: NetworkNamespace) -> None:
    """Load a device's programs anew and put them in the place of the old ones, losing no packet.

    The new tail-call map is pinned under a name of its own before the first entry program is
    exchanged: whatever happens to this process then, no program calls into an emptied map.

    Raises:
        VerifierError: the verifier refused a program; the old ones stay.
        KernelError: the kernel refused something else, or the device is gone.
    """
    step = recipe.load
    mount = Path(bpffs(step.where))
    folder = objects.globals_folder(mount)
    staged = folder / f"{dict(step.pins)[CALLS]}_next"
    with ExitStack() as stack:
        new = objects.load(
            paths[step.object],
            config=config_of(step),
            bpffs=mount,
            pins=dict(step.pins),
        )
        stack.callback(new.close)
        for _, name in step.pins:
            _hold(folder / name, stack)
        # before the entries change: a prog_array is emptied when its last reference outside goes
        if CALLS in new.loaded.maps:
            new.loaded.maps[CALLS].pin(staged)
        _attach(recipe.attach, new, here)
        new.publish()
        staged.unlink(missing_ok=True)
        # a packet that entered by an old program may still be on its way to a tail call
        wait_for_readers()


def _hold(pin: Path, stack: ExitStack) -> None:
    """Keep the old map until the block ends: programs under way still call into it."""
    fd = get_pinned(pin)
    if fd is not None:
        stack.enter_context(BpfMap(fd))


def _attach(
    points: Iterable[AttachTc | AttachXdp], new: objects.LoadedObject, here: NetworkNamespace
) -> None:
    with here.entered():
        for point in points:
            program = new.loaded.programs[point.program]
            try:
                index = socket.if_nametoindex(point.device)
            except OSError:
                raise KernelError(
                    f"device {point.device!r} is not there in {here.name!r}",
                    hint="was the pod removed?",
                ) from None
            if isinstance(point, AttachXdp):
                bpfattach.attach_xdp(program, index, XDP_MODES[point.mode])
            else:
                attach_tc(point, program, index)


def withdraw(recipe: Recipe, slot: int) -> None:
    """Nobody can call an endpoint any more, and the pins of its private maps are gone."""
    folder = globals_of(recipe.load.where)
    with BpfMap.from_pin(folder / "cilium_call_policy") as calls:
        calls.delete(slot.to_bytes(4, "little"))
    for _, pin in recipe.load.pins:
        (folder / pin).unlink(missing_ok=True)


def globals_of(node: str) -> Path:
    """Return the folder of a node's pinned maps, as the keeper sees it."""
    return Path(bpffs(node), "tc", "globals")


def unfinished(node: str) -> tuple[str, ...]:
    """Return the private tail-call maps that an exchange left half-way, as pinned names."""
    folder = globals_of(node)
    return tuple(sorted(path.name for path in folder.glob("cilium_calls_*_next")))


def forget_staged(node: str) -> None:
    """Remove the names that a killed agent had pinned maps under, and not yet exchanged."""
    for path in globals_of(node).glob("*_next_[0-9]*"):
        path.unlink(missing_ok=True)


# -- state directories --------------------------------------------------------------------------


def state_directory(node: str, name: str | int) -> Path:
    """Return an endpoint's state directory, as the keeper sees it."""
    return Path(NODES_DIR, node, "cilium", STATE, str(name))


def write_state(recipes: Sequence[Recipe], name: str | int, paths: Mapping[str, Path]) -> Path:
    """Write ``NAME_next`` with headers, objects and map list; return it.

    Args:
        recipes: of the endpoint's devices; the first one's constants are ``ep_config.h``.
        name: endpoint id.
        paths: compiled objects by name.

    Raises:
        KernelError: the state directory cannot be written.
    """
    target = state_directory(recipes[0].load.where, f"{name}_next")
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for number, recipe in enumerate(recipes):
            step = recipe.load
            stem = OBJECT_NAMES.get(step.instance, step.object)
            (target / (f"{stem}.h" if number else HEADER)).write_text(header_text(step))
            objects.export(paths[step.object], config_of(step), target / f"{stem}.o")
        (target / MAP_LIST).write_text("".join(map_list(recipe.load) for recipe in recipes))
    except OSError as error:
        raise KernelError(
            f"state directory {target}: {error.strerror}", hint="is /run full? see `df /run`"
        ) from None
    return target


def accept_state(node: str, name: str | int) -> None:
    """Let ``NAME_next`` take the place of ``NAME``; the endpoint's log moves along."""
    current, following = state_directory(node, name), state_directory(node, f"{name}_next")
    # the log is the endpoint's, not its programs'
    log = current / "log"
    if log.exists():
        shutil.copy2(log, following / "log")
    # a folder can only be renamed onto an empty one
    shutil.rmtree(current, ignore_errors=True)
    following.rename(current)


def forget_next(node: str, name: str | int) -> None:
    """Remove ``NAME_next``: what it describes was not loaded."""
    shutil.rmtree(state_directory(node, f"{name}_next"), ignore_errors=True)


def forget_state(node: str, name: str | int) -> None:
    """Remove the state directories of an endpoint that is gone."""
    for folder in (str(name), f"{name}_next"):
        shutil.rmtree(state_directory(node, folder), ignore_errors=True)


def header_text(step: LoadObject) -> str:
    """Return the load-time constants of an object as the C header Cilium would have generated."""
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0 */",
        f"/* Constants of {step.object}.o as loaded for {step.instance} on {step.where}. */",
        "#pragma once",
        "",
    ]
    lines += [f"#define {name.upper()} {_c_value(value)}" for name, value in step.config]
    return "\n".join(lines) + "\n"


def _c_value(value: Any) -> str:  # noqa: ANN401 - a plan's constant: number, truth, text
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(value)
    data = config_value(value)
    if isinstance(data, bytes):
        octets = ", ".join(f"{octet:#04x}" for octet in data)
        return f"{{ {octets} }} /* {value} */"
    # what a C program on this machine has to store so that the bytes lie in network order
    number = int.from_bytes(IPv4Address(data).packed, "little")
    return f"{number:#010x} /* {value}, network byte order */"


def map_list(step: LoadObject) -> str:
    """Return one line per private map: its name in C and where it is pinned on the node."""
    return "".join(f"{name} /sys/fs/bpf/tc/globals/{pin}\n" for name, pin in step.pins)
