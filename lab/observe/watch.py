"""Following traffic that the lab did not send: packets one by one, as soon as each is complete."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from lab.kernel import tracing
from lab.observe.filter import Filter, parse_filter
from lab.observe.headers import PROTOCOLS
from lab.observe.select import Known
from lab.observe.tracer import Flow, Tracer, datapath_words
from lab.trace import Trace
from lab.waiting import pause

if TYPE_CHECKING:
    from lab.runtime.live import Lab

QUIET_NS = 150_000_000
"""A packet of which nothing new was seen for so long is complete."""

_POLL_S = 0.05
_ANY = "0.0.0.0"
_NARROWING = frozenset({"tcp", "udp", "icmp"})
_MOST_BYTES = 32 << 20
"""What the collector keeps for a reader that cannot follow; the rest counts as lost."""


class Watch:
    """Packets of a lab as they come; ends with its block, with ``count``, or after a while.

    The probes have left the kernel when the block has ended, however it ends.

    Args:
        lab: must be up.
        where: which packets, in the language of :mod:`lab.observe.filter`.
        count: end after so many packets; 0 for no end.
        duration_s: end after so long; None for no end.
        light: without call stacks and the probes that others can stand in for.

    Attributes:
        seen: packets complete so far.
        shown: those among them that the filter let through.
        lost: events that the kernel could not hand over.

    Raises:
        InputError: the filter does not parse or names what the lab does not have.
        LabError: as :class:`lab.observe.tracer.Tracer`.
    """

    def __init__(
        self,
        lab: Lab,
        where: str = "",
        *,
        count: int = 0,
        duration_s: float | None = None,
        light: bool = False,
    ) -> None:
        self.filter: Filter = parse_filter(where, vocabulary(lab))
        self.count = count
        self.duration_s = duration_s
        self.seen = self.shown = 0
        flow = narrowed(self.filter, lab)
        self._tracer = Tracer(lab, stacks=not light, most_bytes=_MOST_BYTES)
        if flow is None:
            self._tracer.everything()
        else:
            self._tracer.only_flow(flow)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def lost(self) -> int:
        """Events lost so far."""
        return self._tracer.lost

    def __iter__(self) -> Iterator[Trace]:
        """Yield each packet that is wanted, once it is complete, in order of first sight."""
        begun = time.monotonic()
        while True:
            # asked before the packets are taken, so that what came within the time is still shown
            over = self.duration_s is not None and time.monotonic() - begun >= self.duration_s
            for trace in self._tracer.complete(0 if over else QUIET_NS):
                self.seen += 1
                if not self.filter.matches(trace):
                    continue
                self.shown += 1
                yield trace
                if self.shown == self.count:
                    return
            if over:
                return
            pause(_POLL_S)

    def close(self) -> None:
        """Take the probes out of the kernel; idempotent."""
        self._tracer.close()


def vocabulary(lab: Lab) -> Known:
    """Return the names that filters about a lab may use."""
    facts = lab.facts
    pods = frozenset(pod.name for pod in facts.pods)
    nodes = frozenset(node.name for node in facts.nodes)
    devices = {"lo", "eth0", "cilium_host", "cilium_net", "cilium_vxlan", "br0"}
    labels: dict[str, set[int]] = {}
    for key, number in facts.identities.items():
        for label in key:
            labels.setdefault(label.partition(":")[2] or label, set()).add(number)
    for pod in facts.pods:
        for label in pod.labels:
            labels.setdefault(label, set()).add(pod.identity)
    reasons = {*tracing.drop_reasons().values(), *datapath_words().get("drop_reason", {}).values()}
    return Known(
        places={
            "pod": pods,
            "node": nodes,
            # a port of the underlay's bridge is called like the machine behind it
            "device": nodes | devices | {"world"} | {pod.lxc for pod in facts.pods},
            "place": pods | nodes | {"world"},
        },
        identities={label: frozenset(numbers) for label, numbers in labels.items()},
        drop_reasons=frozenset(reason.upper() for reason in reasons),
        buffers=frozenset(name for probe in lab.probes for name in probe.buffers),
        is_function=tracing.kernel_knows,
    )


def narrowed(wanted: Filter, lab: Lab) -> Flow | None:
    """Return what the kernel may leave out already, None if it must report every packet.

    Whatever translates addresses on the way, a packet keeps its protocol, and a packet that ever
    had a pod's address as its source had it from its first sight on. A destination may become a
    pod's half way, so that only ``to``, which asks of the first sight, narrows it.
    """
    protocol, source, destination = 0, "", ""
    numbers = {word: number for number, word in PROTOCOLS.items()}
    addresses = {pod.name: str(pod.address) for pod in lab.facts.pods}
    for test in wanted.needed():
        name, values = test.asked.name, test.values
        value = values[0] if len(values) == 1 else ""
        # the kernel's filter reads the innermost headers alone
        if test.asked.layer:
            continue
        if name in _NARROWING and not values:
            protocol = numbers[name]
        elif name == "protocol" and value in _NARROWING:
            protocol = numbers[str(value)]
        elif name == "src" and isinstance(value, IPv4Network) and value.prefixlen == 32:
            known = str(value.network_address)
            source = known if known in addresses.values() else source
        elif name == "from":
            source = addresses.get(str(value), source)
        elif name == "to":
            destination = addresses.get(str(value), destination)
    if not (protocol or source or destination):
        return None
    return Flow(source=source or _ANY, destination=destination or _ANY, protocol=protocol)
