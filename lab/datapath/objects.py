"""Load one object for one device: maps of the node, tail calls, attachment, replacement.

Order matters for the packets under way (a mix of old entry program and new tail calls loses
them): maps first, then programs into a fresh tail-call map, then the entry programs atomically,
then the endpoint's slot in ``cilium_call_policy``, and the pin of the tail-call map last.
Needs root.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import lru_cache
from pathlib import Path
from typing import Self

from lab.errors import InputError, KernelError
from lab.kernel import bpfattach
from lab.kernel.bpf import (
    ConfigValue,
    Loaded,
    ProgramType,
    config_patches,
    declared_maps,
    load_object,
    wait_for_readers,
)
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType, get_pinned, possible_cpus
from lab.kernel.btf import read_object
from lab.layouts.attach import CALLS, GLOBALS, PRIVATE, XDP_OBJECTS, AttachPoint, Side

_TAIL = "tail:"
_SIDES = {
    Side.INGRESS: bpfattach.Direction.INGRESS,
    Side.EGRESS: bpfattach.Direction.EGRESS,
}
CAPACITIES = {"ct_tcp_max": "cilium_ct4_global"}
"""Load-time constant -> the map that holds so many entries."""
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True, slots=True)
class TailCall:
    """A program that belongs into a slot of a program array."""

    program: str
    map: str
    slot: int


def tail_calls(path: Path, config: Mapping[str, ConfigValue]) -> tuple[TailCall, ...]:
    """Return the tail calls an object declares with ``btf_decl_tag("tail:MAP/SLOT")``.

    A slot that is a word (``ENDPOINT_ID``) is the load-time constant of that name in lower case.

    Raises:
        InputError: a slot names a constant that ``config`` does not set.
        BuildError: the file is no BPF object.
    """
    found = []
    for function, tag in read_object(path).btf.decl_tags:
        if tag.startswith(_TAIL):
            name, _, slot = tag.removeprefix(_TAIL).partition("/")
            found.append(TailCall(function, name, _slot(slot, config, path)))
    return tuple(found)


def _slot(word: str, config: Mapping[str, ConfigValue], path: Path) -> int:
    if word.isdecimal():
        return int(word)
    value = config.get(word.lower())
    if not isinstance(value, int):
        raise InputError(
            f"{path.name}: tail-call slot {word} needs the constant {word.lower()}",
            hint=f"set {word.lower()} in the configuration of this object",
        )
    return value


# the stamp is part of the key: a file that was built anew is read anew
@lru_cache(maxsize=64)
def _declared(path: Path, _stamp: int) -> dict[str, MapSpec]:
    return declared_maps(path)


def maps_of(path: Path) -> Mapping[str, MapSpec]:
    """Return what maps an object declares, by C name; read once per file and process.

    Raises:
        BuildError: the file is no BPF object.
    """
    read_object(path)  # says clearly what is wrong with the file
    return _declared(path, path.stat().st_mtime_ns)


def program_type(path: Path) -> ProgramType:
    """Return the type of programs in sections libbpf does not know, from the object's name."""
    stem = path.name.removesuffix(".o").partition("-")[0]
    return ProgramType.XDP if stem in XDP_OBJECTS else ProgramType.SCHED_CLS


def _fits(existing: BpfMap, wanted: MapSpec) -> bool:
    entries = wanted.max_entries
    # libbpf gives a perf array without capacity one slot per possible CPU
    if wanted.type == MapType.PERF_EVENT_ARRAY and entries == 0:
        entries = possible_cpus()
    spec = existing.spec
    return (spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags) == (
        wanted.type,
        wanted.key_size,
        wanted.value_size,
        entries,
        wanted.flags,
    )


@dataclass(slots=True)
class LoadedObject:
    """One object loaded for one device; the owner of the descriptors still needed to install it.

    Open are its entry programs, its private maps, and what `publish` has to fill; the rest lives in
    the kernel only. After `publish` it may be closed: the private tail-call map is pinned then
    (the kernel empties one when neither a descriptor nor a pin of it is left).

    Attributes:
        program_ids: of every program, by C name.
        map_ids: of every map, by C name.
    """

    path: Path
    globals: Path
    pins: Mapping[str, str]
    calls: tuple[TailCall, ...]
    loaded: Loaded
    program_ids: Mapping[str, int]
    map_ids: Mapping[str, int]

    def attach(
        self, points: Iterable[AttachPoint], ifindex: int, *, native_xdp: bool = False
    ) -> None:
        """Put the entry programs into their hooks, each replaced atomically.

        Acts in the network namespace of the calling thread.

        Args:
            points: of this object and the device's role.
            ifindex: of the device.
            native_xdp: XDP in the driver instead of in the stack.

        Raises:
            KernelError: no such device here, or the kernel refuses.
        """
        for point in points:
            program = self.loaded.programs[point.program]
            if point.side is Side.XDP:
                mode = bpfattach.XdpMode.NATIVE if native_xdp else bpfattach.XdpMode.GENERIC
                bpfattach.attach_xdp(program, ifindex, mode)
            else:
                bpfattach.attach_tc(program, ifindex, _SIDES[point.side])

    def publish(self) -> None:
        """Let others call the endpoint, then exchange the pins of its private maps; comes last.

        Raises:
            KernelError: the bpffs is gone.
        """
        self._fill(own=False)
        for name, pin in self.pins.items():
            if name in self.loaded.maps:
                self.loaded.maps[name].pin(self.globals / pin)

    def withdraw(self) -> None:
        """Undo `publish`: slots in the node's maps and private pins; missing ones are fine."""
        for call in self.calls:
            if call.map not in self.pins:
                self.loaded.maps[call.map].delete(struct.pack("<I", call.slot))
        for name, pin in self.pins.items():
            if name in self.loaded.maps:
                (self.globals / pin).unlink(missing_ok=True)

    def _fill(self, *, own: bool) -> None:
        """Fill the slots of the private tail-call maps, or those of the node's."""
        for call in self.calls:
            if (call.map in self.pins) is own:
                program = self.loaded.programs[call.program]
                slots = self.loaded.maps[call.map]
                slots.update(struct.pack("<I", call.slot), struct.pack("<I", program.fd))

    def close(self) -> None:
        """Close every descriptor; attached programs and pinned maps stay in the kernel."""
        self.loaded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sized_maps(path: Path, config: Mapping[str, ConfigValue]) -> dict[str, MapSpec]:
    """Return the maps an object declares, with the capacities that its constants ask for."""
    specs = dict(maps_of(path))
    for constant, name in CAPACITIES.items():
        if constant in config and name in specs:
            specs[name] = changed(specs[name], max_entries=int(str(config[constant])))
    return specs


def _capacities(specs: Mapping[str, MapSpec]) -> dict[str, int]:
    return {name: specs[name].max_entries for name in CAPACITIES.values() if name in specs}


def ensure_maps(
    bpffs: Path,
    paths: Iterable[Path],
    private: Iterable[str] = PRIVATE,
    config: Mapping[str, ConfigValue] | None = None,
) -> None:
    """Create and pin the node's maps that are not there yet, without loading a program.

    A pinned map that no longer fits its declaration is replaced by an empty one; programs that
    use the old one keep it. Safe to call from several threads.

    Args:
        bpffs: mount point of the node's bpffs.
        paths: compiled objects.
        private: C names of maps that belong to one load and are not the node's.
        config: load-time constants, of which some are capacities.

    Raises:
        KernelError: ``bpffs`` is no bpffs, or the kernel refused a map.
    """
    folder, own = globals_folder(bpffs), frozenset(private)
    # two loaders that both find a map missing would make two, and pin one
    with _locks[str(bpffs)]:
        for path in paths:
            shared = {n: s for n, s in sized_maps(path, config or {}).items() if n not in own}
            with ExitStack() as stack:
                present = _open_fitting(folder, {n: n for n in shared}, shared, stack)
                if len(present) == len(shared):
                    continue
                made = load_object(
                    path,
                    default_type=program_type(path),
                    reuse=present,
                    only=(),
                    max_entries=_capacities(shared),
                )
                stack.callback(made.close)
                for name in shared.keys() - present.keys():
                    made.maps[name].pin(folder / name)


def _open_fitting(
    folder: Path, names: Mapping[str, str], specs: Mapping[str, MapSpec], stack: ExitStack
) -> dict[str, BpfMap]:
    """Open the pinned maps that fit their declaration; ``names``: C name -> file name."""
    present = {}
    for name, pin in names.items():
        fd = get_pinned(folder / pin)
        if fd is not None:
            existing = stack.enter_context(BpfMap(fd, name=name))
            if _fits(existing, specs[name]):
                present[name] = existing
    return present


def globals_folder(bpffs: Path) -> Path:
    """Return the folder of a node's pinned maps, created if missing.

    Raises:
        KernelError: ``bpffs`` is not there or cannot hold folders.
    """
    folder = bpffs / GLOBALS
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KernelError(
            f"{folder} cannot be created: {error.strerror}",
            hint=f"mount it first: mount -t bpf bpf {bpffs}",
        ) from error
    return folder


def load(
    path: Path, *, config: Mapping[str, ConfigValue], bpffs: Path, pins: Mapping[str, str]
) -> LoadedObject:
    """Verify and load an object for one device; nothing is attached or published yet.

    Its private tail-call map is new and full when this returns; maps shared by the node are used
    where pinned and created where not. Loads of several devices may run in parallel threads.

    Args:
        path: compiled object.
        config: load-time constants by name.
        bpffs: mount point of the node's bpffs.
        pins: C name -> file name of the maps this device does not share
            (`lab.layouts.attach.private_pins`).

    Raises:
        VerifierError: the verifier refused a program.
        InputError: an unknown or unfitting constant.
        KernelError: the kernel refused anything else.
    """
    calls = tail_calls(path, config)
    specs = sized_maps(path, config)
    pins = {name: pin for name, pin in pins.items() if name in specs}
    ensure_maps(bpffs, [path], private={CALLS, *pins}, config=config)
    folder = globals_folder(bpffs)
    names = {name: pins.get(name, name) for name in specs if name != CALLS}
    with ExitStack() as stack:
        reuse = _open_fitting(folder, names, specs, stack)
        loaded = load_object(
            path,
            default_type=program_type(path),
            config=config,
            reuse=reuse,
            max_entries=_capacities(specs),
        )
    try:
        done = LoadedObject(
            path,
            folder,
            pins,
            calls,
            loaded,
            {name: program.info().id for name, program in loaded.programs.items()},
            {name: bpf_map.id for name, bpf_map in loaded.maps.items()},
        )
        done._fill(own=True)
        # the private map keeps what is called through it; `publish` has to fill the node's slots
        inner = {call.program for call in calls if call.map in pins}
        filled = {call.map for call in calls}
        loaded.keep(loaded.programs.keys() - inner, pins.keys() | filled)
    # KeyError: a tag names a map that the object does not have
    except (KernelError, KeyError):
        loaded.close()
        raise
    return done


def replace(
    new: LoadedObject,
    old: LoadedObject | None,
    points: Iterable[AttachPoint],
    ifindex: int,
    *,
    native_xdp: bool = False,
) -> None:
    """Exchange a device's programs without losing a packet: attach, publish, close ``old``.

    ``old`` is closed only when no CPU can still be inside its programs.

    Raises:
        KernelError: as `LoadedObject.attach`; ``old`` then stays in charge where not yet replaced.
    """
    new.attach(points, ifindex, native_xdp=native_xdp)
    new.publish()
    if old is not None:
        wait_for_readers()
        old.close()


def export(path: Path, config: Mapping[str, ConfigValue], target: Path) -> None:
    """Write the object with its constants filled in, as ``bpftool prog loadall`` can load it.

    ``target`` is complete or not there.

    Raises:
        InputError: an unknown or unfitting constant.
        KernelError: ``target`` cannot be written.
    """
    elf = read_object(path)
    content = bytearray(elf.data)
    for symbol, value in config_patches(elf, config):
        start = elf.place(symbol.section)[0] + symbol.offset
        content[start : start + len(value)] = value
    # renamed into place: whoever reads the old file meanwhile has all of it
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        staged.write_bytes(content)
        staged.replace(target)
    except OSError as error:
        staged.unlink(missing_ok=True)
        name = errno.errorcode.get(error.errno or 0, "")
        raise KernelError(
            f"writing {target}: {error.strerror} ({name})", hint="choose another folder"
        ) from error
