"""What a scenario is and how it runs."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lab.errors import LabError
from lab.model import Options, Topology
from lab.runtime import Lab


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One sentence about the network and whether it holds.

    Attributes:
        detail: what was observed, where the sentence alone does not say it.
    """

    statement: str
    holds: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one scenario.

    Attributes:
        scenario: its name, the file's name without ending.
        seconds: wall time, the lab's bring-up included.
        error: what ended it early, empty if nothing did.
        unsupported: it ended because this kernel cannot do something; then it has not passed,
            and the command line ends with exit code 3.
    """

    scenario: str
    claim: str
    checks: tuple[Check, ...]
    seconds: float
    error: str = ""
    unsupported: bool = False

    @property
    def passed(self) -> bool:
        """Whether it ran to its end, checked something, and every sentence holds."""
        return bool(self.checks) and not self.error and all(item.holds for item in self.checks)


class Stage(Lab):
    """The lab a scenario runs in: a lab that also takes down sentences.

    Attributes:
        checks: what has been stated so far.
    """

    checks: list[Check]

    def check(self, statement: str, holds: object, *, detail: str = "") -> bool:
        """Take down a sentence and whether it holds; the scenario goes on either way."""
        self.checks.append(Check(statement=statement, holds=bool(holds), detail=detail))
        return bool(holds)


Body = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A function that makes a claim, and the topology it needs.

    Attributes:
        name: of the file it stands in.
        claim: the first line of the file's docstring.
    """

    name: str
    claim: str
    topology: Topology
    body: Body

    def run(self, *, engine: str = "netns") -> Report:
        """Build the lab, run the body, take the lab down.

        Only errors of the lab end a scenario quietly, as part of the report; a mistake in the
        scenario's own code is raised.
        """
        begun = time.perf_counter()
        stage = Stage(self.topology, engine=engine)
        stage.checks = []
        error, unsupported = "", False
        try:
            with stage:
                self.body(stage)
        except LabError as problem:
            error, unsupported = str(problem), problem.exit_code == 3
        return Report(
            scenario=self.name,
            claim=self.claim,
            checks=tuple(stage.checks),
            seconds=time.perf_counter() - begun,
            error=error,
            unsupported=unsupported,
        )


def scenario(topology: Topology, **options: object) -> Callable[[Body], Scenario]:
    """Make a function a scenario on ``topology``; keywords replace datapath options.

    Example: ``@scenario(topology, routing="native")``.
    """

    def make(body: Body) -> Scenario:
        module = inspect.getmodule(body)
        path = Path(inspect.getfile(body))
        document = (module.__doc__ if module else None) or body.__doc__ or path.stem
        chosen = topology
        if options:
            chosen = replace(topology, options=_replace(topology.options, options))
        return Scenario(path.stem, document.strip().splitlines()[0], chosen, body)

    return make


def _replace(options: Options, changes: dict[str, object]) -> Options:
    return replace(options, **changes)  # type: ignore[arg-type]
