"""The ways that are measured beside each other: labs for all of them, and what is compared."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from lab import Lab, Options, Service, ServicePort
from tests.bench._measure import (
    PLAIN,
    PORT,
    add_bare_veth,
    add_floor,
    add_kernel_overlay,
    add_tunnel_floor,
    lab_with,
    stream,
    stream_of_two,
    trips,
)
from tests.bench._turns import Measure

SAME_MTU_STREAM, SAME_MTU_TUNNEL = 0.9, 1.0
FAST = Options(host_routing="bpf", tcx=True, inline_tail_calls=True, proxy_rules=False)
"""The way that carries the goals; legacy routing stands beside its floor."""
KERNEL, CLEAN = "kernel bridge and VXLAN", "the same without netfilter"
"""The kernel's own way between nodes: as it sets bridges up and Kubernetes needs them for iptables
to see services (``bridge-nf-call-iptables`` 1, and no rule at all), which the goals are about; and
with bridges that ask nobody, which is the most that way can do."""
HERE, THERE = "One node: round trip on one CPU", "Two nodes: round trip on one CPU"
SERVICE = "A service: round trip on one CPU"
STREAM_HERE, STREAM_THERE = "One node: a stream at MTU 1500", "Two nodes: a stream at MTU 1450"
STREAMS = (
    ("{} on one CPU", stream, max, 6),
    ("{} on two CPUs", stream_of_two, statistics.median, 3),
)
"""Titles, measurements, which of a round's values counts, and of how many.

On one CPU the best: what else the machine does only takes away. On two it is luck who overtakes
whom, and the best would be the luckiest.
"""
EXPECTED_S = {
    HERE: 1.7,
    SERVICE: 0.6,
    THERE: 2.0,
    **{
        title.format(where): seconds
        for (title, *_), seconds in zip(STREAMS, (6.0, 5.5), strict=True)
        for where in (STREAM_HERE, STREAM_THERE)
    },
}
"""Seconds each comparison takes in one set of labs, and in which order they come."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Paths to measure beside the first of them.

    Attributes:
        title: of all.
        paths: by their labels.
        goals: ratios to the first path.
        value: which of the values measured in one set of labs counts.
        turns: how often each is measured there.
    """

    title: str
    paths: dict[str, Measure]
    goals: dict[str, float]
    value: Callable[[list[float]], float] = min
    turns: int = 3

    @property
    def is_stream(self) -> bool:
        """Whether values are Gbit/s, of which more is better, and not microseconds."""
        return "stream" in self.title


@dataclass(frozen=True, slots=True)
class _Labs:
    """One set of labs."""

    ours: Lab
    native: Lab
    tunnel: Lab
    short: Lab
    plain: Lab
    kube: Lab
    floor: Lab
    peer_floor: Lab
    tunnel_floor: Lab


@contextmanager
def contests() -> Iterator[list[Contest]]:
    """Everything to compare, in one set of labs, which is gone afterwards."""
    with (
        lab_with(Options()) as ours,
        lab_with(Options(routing="native")) as native,
        lab_with(FAST) as tunnel,
        lab_with(replace(FAST, routing="native")) as short,
        lab_with(PLAIN) as plain,
        lab_with(PLAIN) as kube,
        lab_with(PLAIN) as floor,
        lab_with(PLAIN) as peer_floor,
        lab_with(PLAIN) as tunnel_floor,
    ):
        labs = _Labs(ours, native, tunnel, short, plain, kube, floor, peer_floor, tunnel_floor)
        bare, overlay = add_bare_veth(plain), add_kernel_overlay(plain)
        add_kernel_overlay(kube, netfilter=True)
        add_floor(floor, "veth")
        add_floor(peer_floor, "peer")
        add_tunnel_floor(tunnel_floor)
        port = ServicePort(80, PORT)
        ours.apply(Service(name="one", ports=(port,), backends=("web",)))
        yield [*_round_trips(labs, bare, overlay), *_streams(labs, bare, overlay)]


def _round_trips(labs: _Labs, bare: str, overlay: str) -> Iterator[Contest]:
    ours = labs.ours
    web, server = str(ours.pod("web").address), str(ours.pod("server").address)
    service = str(ours.service("one").address)
    yield Contest(
        HERE,
        {
            "bare veth pair": partial(trips, labs.plain, "web", bare),
            "routed, no datapath": partial(trips, labs.plain, "web", web),
            "floor of legacy routing": partial(trips, labs.floor, "web", web),
            "pod to pod": partial(trips, ours, "web", web),
            "floor of host routing": partial(trips, labs.peer_floor, "web", web),
            "pod to pod, host routing": partial(trips, labs.short, "web", web),
        },
        {"pod to pod, host routing": 1.1},
    )
    yield Contest(
        SERVICE,
        {
            "direct": partial(trips, ours, "web", web),
            "ClusterIP": partial(trips, ours, "web", service, 80),
        },
        {"ClusterIP": 1.05},
    )
    yield Contest(
        THERE,
        {
            KERNEL: partial(trips, labs.kube, "server", overlay),
            CLEAN: partial(trips, labs.plain, "server", overlay),
            "floor of the tunnel": partial(trips, labs.tunnel_floor, "server", server),
            "pod to pod, tunnel": partial(trips, ours, "server", server),
            "pod to pod, tunnel, host routing": partial(trips, labs.tunnel, "server", server),
            "pod to pod, native": partial(trips, labs.native, "server", server),
            "pod to pod, native, host routing": partial(trips, labs.short, "server", server),
        },
        {"pod to pod, tunnel, host routing": SAME_MTU_TUNNEL},
    )


def _streams(labs: _Labs, bare: str, overlay: str) -> Iterator[Contest]:
    web, server = str(labs.ours.pod("web").address), str(labs.ours.pod("server").address)
    for title, measure, value, turns in STREAMS:
        yield Contest(
            title.format(STREAM_HERE),
            {
                "bare veth pair": partial(measure, labs.plain, "web", bare),
                "floor of legacy routing": partial(measure, labs.floor, "web", web),
                "floor of host routing": partial(measure, labs.peer_floor, "web", web),
                "pod to pod": partial(measure, labs.native, "web", web),
                "pod to pod, host routing": partial(measure, labs.short, "web", web),
            },
            {"pod to pod, host routing": SAME_MTU_STREAM},
            value,
            turns,
        )
        yield Contest(
            title.format(STREAM_THERE),
            {
                KERNEL: partial(measure, labs.kube, "server", overlay),
                CLEAN: partial(measure, labs.plain, "server", overlay),
                "floor of the tunnel": partial(measure, labs.tunnel_floor, "server", server),
                "pod to pod, tunnel": partial(measure, labs.ours, "server", server),
                "pod to pod, tunnel, host routing": partial(measure, labs.tunnel, "server", server),
            },
            {"pod to pod, tunnel, host routing": SAME_MTU_TUNNEL},
            value,
            turns,
        )
