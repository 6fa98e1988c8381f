"""Which steps lose which grade of evidence where the kernel lacks one of its sources.

Measured, not concluded: a live test takes each source away and looks at every step.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.trace import Evidence


@dataclass(frozen=True, slots=True)
class Fall:
    """What some steps are proven by, and what is left without it.

    Attributes:
        steps: numbers.
        grade: with the source.
        left: without it; None where nothing tells of the step any more.
    """

    steps: tuple[int, ...]
    grade: Evidence
    left: Evidence | None = None

    def __str__(self) -> str:
        several = len(self.steps) > 1
        numbers = " and ".join(map(str, self.steps))
        left = f"to {self.left.word}" if self.left else "to nothing"
        fall = "fall" if several else "falls"
        return f"step{'s' * several} {numbers} {fall} from {self.grade.word} {left}"


_READY = (
    Fall((14, 16), Evidence.STACK, Evidence.PROGRAM),
    Fall((18, 19), Evidence.TRACEPOINT),
)  # fmt: skip
FALLS: dict[str, tuple[Fall, ...]] = {
    "on_napi_poll": (Fall((1,), Evidence.TRACEPOINT, Evidence.STACK),),
    "on_consume": (Fall((2,), Evidence.STACK), Fall((3,), Evidence.TRACEPOINT)),
    "on_gro_receive": (Fall((4,), Evidence.TRACEPOINT),),
    "on_receive_skb": (Fall((5,), Evidence.TRACEPOINT),),
    "tc_ingress": (Fall((8,), Evidence.PROGRAM, Evidence.IMPLIED),),
    "on_route": (
        Fall((10, 12), Evidence.STACK, Evidence.PROGRAM),
        Fall((13,), Evidence.TRACEPOINT),
    ),
    "netfilter_first": (Fall((11,), Evidence.PROGRAM, Evidence.IMPLIED),),
    "on_data_ready": _READY,
    "on_readable": _READY,
}
"""By probe, of a datagram received through NAPI, native XDP, a classifier and a chain. The other
probes tell verdicts, reasons and the sending side: without them no step loses its grade.
"""


def loses(probe: str) -> str:
    """Return in words which steps lose which grade without a probe."""
    return ", ".join(map(str, FALLS.get(probe, ()))) or "no step loses its grade"
