"""What two witnesses of one packet say of it, compared: the result as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lab.trace.steps import Step


@dataclass(frozen=True, slots=True)
class Difference:
    """A place at which two witnesses of one packet contradict each other.

    Attributes:
        place: ``(namespace, device)``.
        step: receive step; None for a hook of the send side, or for the whole device.
        hook: step's title or the hook's name; empty for the whole device.
        tracepoints, functions: what each of the two says.
    """

    place: tuple[str, str]
    step: Step | None
    hook: str
    tracepoints: str
    functions: str

    def __str__(self) -> str:
        where = "/".join(filter(None, self.place))
        what = f"step {self.step}" if self.step else self.hook or "the device"
        return (
            f"{what} at {where}: tracepoints say {self.tracepoints!r}, "
            f"functions say {self.functions!r}"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two witnesses of one packet say of it, compared.

    Attributes:
        agreed: steps and hooks of which both say the same.
        alone: steps and hooks that only one of them is able to see, a phrase each.
        differences: where they contradict each other.
    """

    agreed: int
    alone: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()

    @property
    def agree(self) -> bool:
        """True if there is no contradiction and something to agree on."""
        # two witnesses that saw nothing in common have not confirmed each other
        return not self.differences and self.agreed > 0

    def __str__(self) -> str:
        if self.differences:
            first, *others = map(str, self.differences)
            more = f" (and at {len(others)} more)" if others else ""
            return f"the two witnesses differ at {first}{more}"
        alone = f"; seen by one alone: {', '.join(self.alone)}" if self.alone else ""
        if not self.agreed:
            return f"the two witnesses have no step or hook in common{alone}"
        return f"the two witnesses agree on {self.agreed} steps and hooks{alone}"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON value; its ``verdict`` is ``agree`` or ``differ``."""
        differences = [
            {**asdict(difference), "step": difference.step.number if difference.step else None}
            for difference in self.differences
        ]
        verdict = "agree" if self.agree else "differ"
        return {
            "verdict": verdict,
            "agreed": self.agreed,
            "alone": list(self.alone),
            "differences": differences,
        }

    @classmethod
    def of(cls, value: Mapping[str, Any] | None) -> Comparison | None:
        """Return what :meth:`as_dict` made, None for None.

        Raises:
            KeyError, TypeError: it is something else.
        """
        if value is None:
            return None
        differences = (
            Difference(
                (one["place"][0], one["place"][1]),
                Step.of(one["step"]) if one["step"] else None,
                one["hook"],
                one["tracepoints"],
                one["functions"],
            )
            for one in value["differences"]
        )
        return cls(value["agreed"], tuple(value["alone"]), tuple(differences))
