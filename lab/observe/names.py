"""Names for numbers: namespaces, devices, programs, kernel functions, drop reasons of a lab."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import dropwhile

from lab.layouts.attach import ATTACH_POINTS

# BPF_OBJ_NAME_LEN without the closing zero
_KERNEL_NAME_BYTES = 15

_HANDED_UP = ("__netif_receive_skb", "netif_receive_skb", "process_backlog", "__napi_poll")


@dataclass(frozen=True, slots=True)
class Place:
    """A device in a namespace, by the names of the topology; empty where unknown."""

    node: str
    namespace: str
    device: str


@dataclass(frozen=True, slots=True)
class Attached:
    """A program in a device's hook: the kernel's id and the C function's full name."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """All names that an assembly needs.

    Attributes:
        devices: (namespace inode, interface index) -> place.
        programs: name of a probe -> the kernel's id of it.
        hooks: (namespace inode, interface index, ``ingress`` ``egress`` or ``xdp``) -> program.
        symbol: address -> kernel function, empty if unknown.
        drop_reasons: the running kernel's, by number.
        words: enum name -> number -> word, of the datapath's own enums.
        owners: address -> pod or node, as text.
    """

    devices: Mapping[tuple[int, int], Place]
    programs: Mapping[str, int] = field(default_factory=dict)
    hooks: Mapping[tuple[int, int, str], Attached] = field(default_factory=dict)
    symbol: Callable[[int], str] = lambda _: ""
    drop_reasons: Mapping[int, str] = field(default_factory=dict)
    words: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)

    def place(self, netns: int, ifindex: int) -> Place:
        """Return a place; only its device is empty where the namespace alone is known."""
        if (found := self.devices.get((netns, ifindex))) is not None:
            return found
        for (inode, _), place in self.devices.items():
            if inode == netns:
                return Place(place.node, place.namespace, "")
        return Place("", "", "")

    def frames(self, stack: Iterable[int]) -> tuple[str, ...]:
        """Return a call stack by names, innermost first, without the probe that took it."""
        named = filter(None, map(self.symbol, stack))
        seen = tuple(dropwhile(_OBSERVER.match, named))
        return tuple(_PROGRAM.sub("bpf:", name) for name in seen)

    def own_frames(self, stack: Iterable[int]) -> tuple[str, ...]:
        """Return the part of a call stack that is about this packet.

        What is below the device that handed it up belongs to another one: to the segment whose
        sending, or whose processing, ran into the softirq.
        """
        frames = self.frames(stack)
        ends = (index for index, name in enumerate(frames) if name.startswith(_HANDED_UP))
        return frames[: next(ends, len(frames))]

    def object(self, probe: str) -> str:
        """Return ``prog ID`` for a probe, as `bpftool prog show` knows it.

        A probe that the kernel has no place for stands for the one that replaced it.
        """
        number = self.programs.get(probe) or self.programs.get(REPLACED.get(probe, ""))
        return f"prog {number}" if number else ""


# frames of the probe itself: its program, and what calls programs at a tracepoint or function
_OBSERVER = re.compile(r"bpf_prog_[0-9a-f]{16}|bpf_trace_run\d|bpf_trampoline_")
_PROGRAM = re.compile(r"^bpf_prog_[0-9a-f]{16}_")
REPLACED = {
    "on_data_ready": "on_readable",
    "netfilter_first": "on_chain",
    "netfilter_last": "on_chain_over",
    "f_ip_rcv_finish": "k_ip_rcv_finish",
}


def full_program_name(name: str) -> str:
    """Return the C function behind a name that the kernel cut to 15 bytes."""
    for point in ATTACH_POINTS:
        if point.program[:_KERNEL_NAME_BYTES] == name:
            return point.program
    return name


def hook_of_program(program: str) -> str:
    """Return the spoken name of a datapath program's hook (``from-container``), empty if none."""
    for point in ATTACH_POINTS:
        if point.program == program:
            return point.hook.value
    return ""


def names_from(
    description: Mapping[str, object],
    *,
    symbol: Callable[[int], str],
    drop_reasons: Mapping[int, str],
    words: Mapping[str, Mapping[int, str]],
    owners: Mapping[str, str],
) -> Names:
    """Return the names in a collector's description (``Collector.describe``)."""
    return Names(
        devices=devices_from(description["places"]),
        programs=_programs(description["programs"]),
        hooks={
            (inode, ifindex, side): Attached(number, full_program_name(name))
            for inode, ifindex, side, number, name in _rows(description["hooks"])
        },
        symbol=symbol,
        drop_reasons=drop_reasons,
        words=words,
        owners=owners,
    )


def devices_from(places: object) -> dict[tuple[int, int], Place]:
    """Return the device table in a collector's list of places."""
    return {
        (inode, ifindex): Place(node, namespace, device)
        for inode, ifindex, node, namespace, device in _rows(places)
    }


def _rows(value: object) -> Iterable[tuple]:  # type: ignore[type-arg]
    assert isinstance(value, list)
    return (tuple(row) for row in value)


def _programs(value: object) -> dict[str, int]:
    assert isinstance(value, dict)
    return {str(name): int(number) for name, number in value.items()}
