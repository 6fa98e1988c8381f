"""The command lines of the datapath's steps, read from the compiled objects themselves.

A step of the plan says *what*; which maps an object has and which slots its tail calls fill is
written in the object. The lines need ``bpftool`` and do what the engine does in process.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from lab.datapath.objects import maps_of, sized_maps, tail_calls
from lab.kernel.bpf import ConfigValue
from lab.kernel.bpfmap import MapSpec, MapType
from lab.layouts.attach import PRIVATE
from lab.layouts.flows import MAGLEV_SIZE
from lab.plan import steps
from lab.plan.steps import Step

PROGRAM_TYPES = {"bpf_xdp": "xdp"}
"""What ``bpftool`` is told; every other object holds tc programs."""


def commands(step: Step, paths: Mapping[str, Path]) -> tuple[str, ...]:
    """Return the lines of any step.

    Args:
        step: of a plan.
        paths: compiled objects by name.
    """
    if isinstance(step, steps.MakeMaps):
        return tuple(_make_maps(step, paths))
    if isinstance(step, steps.LoadObject):
        return tuple(_load(step, paths[step.object]))
    return step.commands()


def _make_maps(step: steps.MakeMaps, paths: Mapping[str, Path]) -> Iterator[str]:
    made: set[str] = set()
    for name in step.objects:
        for map_name, spec in sized_maps(paths[name], {"ct_tcp_max": step.ct_tcp_max}).items():
            # objects share most maps: the first that declares one makes it
            if map_name not in made and map_name not in PRIVATE:
                made.add(map_name)
                yield from _create(f"{steps.globals_dir(step.where)}/{map_name}", map_name, spec)


def _create(pin: str, name: str, spec: MapSpec) -> Iterator[str]:
    line = f"bpftool map create {pin} type {MapType(spec.type).name.lower()}"
    # declared without a capacity: libbpf takes the number of possible CPUs then, bpftool wants to
    # be told
    every_cpu = spec.type == MapType.PERF_EVENT_ARRAY
    entries = "$(nproc --all)" if every_cpu else str(spec.max_entries)
    line += f" key {spec.key_size} value {spec.value_size} entries {entries} name {name[:15]}"
    if spec.type == MapType.HASH_OF_MAPS:
        # a bpffs allows no dots; the only map of maps holds Maglev tables
        inner, size = f"{pin}_inner", 4 * MAGLEV_SIZE
        yield f"bpftool map create {inner} type array key 4 value {size} entries 1 name inner"
        yield f"{line} inner_map pinned {inner}" + (f" flags {spec.flags}" if spec.flags else "")
        # the kernel took the inner map's layout; the map itself has done its duty
        yield f"rm {inner}"
        return
    yield line + (f" flags {spec.flags}" if spec.flags else "")


def _load(step: steps.LoadObject, path: Path) -> Iterator[str]:
    state = f"{steps.NODES_DIR}/{step.where}/cilium/state/{step.instance}"
    target = f"{state}/{step.object}.o"
    yield f"mkdir -p {state} {step.pin_dir}"
    words = ["lab", "configure", step.object, "--to", target]
    yield shlex.join([*words, *(f"{name}={value}" for name, value in step.config)])
    pins, specs = dict(step.pins), maps_of(path)
    where = {name: f"{steps.globals_dir(step.where)}/{pins.get(name, name)}" for name in specs}
    for name in pins.keys() & specs.keys():
        yield from _create(where[name], name, specs[name])
    kind = PROGRAM_TYPES.get(step.object, "classifier")
    # without these words bpftool would give each object maps of its own, and nodes would share
    # nothing
    reuse = " ".join(f"map name {name} pinned {pin}" for name, pin in where.items())
    yield f"bpftool prog loadall {target} {step.pin_dir} type {kind} {reuse}"
    for call in tail_calls(path, config_of(step)):
        slot = " ".join(str(octet) for octet in call.slot.to_bytes(4, "little"))
        program = f"{step.pin_dir}/{call.program}"
        yield f"bpftool map update pinned {where[call.map]} key {slot} value pinned {program}"


def config_of(step: steps.LoadObject) -> dict[str, ConfigValue]:
    """Return a step's load-time constants as the loader takes them."""
    return {name: config_value(value) for name, value in step.config}


def config_value(value: str | int | bool) -> ConfigValue:
    """Turn the text of a plan into what the loader takes: addresses, MACs as bytes, numbers."""
    if not isinstance(value, str):
        return value
    try:
        return IPv4Address(value)
    except AddressValueError:
        return bytes.fromhex(value.replace(":", ""))
