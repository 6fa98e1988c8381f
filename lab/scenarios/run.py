"""What a scenario is and how it runs."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.model import Options, Topology
from lab.runtime import Lab
from lab.scenarios.check import Check, Sentences
from lab.scenarios.wire import WireStage
from lab.wire import Picture, TwoHosts
from lab.wire.recording import Lateness


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one scenario.

    Attributes:
        scenario: its name, the file's name without ending.
        seconds: wall time, the lab's bring-up included.
        error: what ended it early, empty if nothing did.
        unsupported: it ended because this kernel cannot do something; then it has not passed,
            and the command line ends with exit code 3.
        effects: the statements that are true only because of the wire's script.
        outcome: what must be the same in every run, by name.
        pictures: what the scenario wants drawn.
        lateness: how late the wire wrote; None without a wire in between.
    """

    scenario: str
    claim: str
    checks: tuple[Check, ...]
    seconds: float
    error: str = ""
    unsupported: bool = False
    effects: tuple[str, ...] = ()
    outcome: tuple[tuple[str, object], ...] = ()
    pictures: tuple[Picture, ...] = ()
    lateness: Lateness | None = None

    @property
    def passed(self) -> bool:
        """Whether it ran to its end, checked something, and every sentence holds."""
        return bool(self.checks) and not self.error and all(item.holds for item in self.checks)


class Stage(Sentences, Lab):
    """The lab a scenario runs in: a lab that also takes down sentences."""


Body = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A function that makes a claim, and the topology (or the two hosts on a wire) it needs.

    Attributes:
        name: of the file it stands in.
        claim: the first line of the file's docstring.
    """

    name: str
    claim: str
    topology: Topology | TwoHosts
    body: Body

    def run(self, *, engine: str = "netns") -> Report:
        """Build the lab, run the body, take the lab down.

        Only errors of the lab end a scenario quietly, as part of the report; a mistake in the
        scenario's own code is raised.
        """
        begun = time.perf_counter()
        stage: Stage | WireStage
        if isinstance(self.topology, TwoHosts):
            stage = WireStage(self.topology)
        else:
            stage = Stage(self.topology, engine=engine)
        stage.checks = []
        error, unsupported = "", False
        try:
            with stage:
                self.body(stage)
                if isinstance(stage, WireStage):
                    stage.finish()
        # what was checked so far is part of the report all the same
        except LabError as problem:
            error, unsupported = str(problem), problem.exit_code == 3
        report = Report(
            scenario=self.name,
            claim=self.claim,
            checks=tuple(stage.checks),
            seconds=time.perf_counter() - begun,
            error=error,
            unsupported=unsupported,
        )
        if isinstance(stage, WireStage):
            return replace(
                report,
                effects=tuple(stage.effects),
                outcome=tuple(stage.outcome),
                pictures=tuple(stage.pictures),
                lateness=stage.lateness if stage.lateness.packets else None,
            )
        return report


def scenario(topology: Topology | TwoHosts, **options: object) -> Callable[[Body], Scenario]:
    """Make a function a scenario on ``topology``; keywords replace datapath options.

    Example: ``@scenario(topology, routing="native")``.
    """

    def make(body: Body) -> Scenario:
        module = inspect.getmodule(body)
        path = Path(inspect.getfile(body))
        document = (module.__doc__ if module else None) or body.__doc__ or path.stem
        chosen = topology
        if options and isinstance(topology, Topology):
            chosen = replace(topology, options=_replace(topology.options, options))
        return Scenario(path.stem, document.strip().splitlines()[0], chosen, body)

    return make


def _replace(options: Options, changes: dict[str, object]) -> Options:
    return replace(options, **changes)  # type: ignore[arg-type]
