"""The stage of an experiment with two hosts on a wire: sentences, exact outcomes, pictures."""

from __future__ import annotations

from lab.scenarios.check import Sentences
from lab.wire import Bench, Look, Picture, Recording, TwoHosts


class WireStage(Sentences, Bench):
    """Two live hosts that also take down sentences.

    Attributes:
        effects: statements that hold only because of the wire's script; without the script each
            must fail, and a test deletes it to see.
        outcome: what must be exactly the same in every run, by name.
        pictures: what is to be drawn of the experiment.
    """

    def __init__(self, hosts: TwoHosts) -> None:
        super().__init__(hosts)
        self.checks = []
        self.effects: list[str] = []
        self.outcome: list[tuple[str, object]] = []
        self.pictures: list[Picture] = []

    def effect(self, statement: str, holds: object, *, detail: str = "") -> bool:
        """Take down a sentence that is true only because of the wire's script."""
        self.effects.append(statement)
        return self.check(statement, holds, detail=detail)

    def exactly(self, name: str, value: object) -> None:
        """Take down something that has to be the same in every run."""
        self.outcome.append((name, value))

    def picture(
        self,
        look: Look,
        title: str,
        recording: Recording,
        *,
        seed: str = "",
        linux: str = "",
        name: str = "",
        from_ms: float = 0.0,
        to_ms: float = float("inf"),
        skip_bytes: int = 0,
        labels: tuple[str, ...] = (),
    ) -> None:
        """Have the recording drawn.

        Args:
            look: what kind of picture.
            title: what it shows, as a sentence.
            recording: what to draw.
            seed: what the textbook drawing says, where Linux differs.
            linux: what Linux does instead.
            name: of the file; the look's name if empty.
            from_ms: where the picture begins, in milliseconds since the first packet.
            to_ms: where it ends.
            skip_bytes: of the client's stream; the picture counts from the byte after them.
            labels: names of the connections, in the order of their first data.
        """
        self.pictures.append(
            Picture(
                look=look,
                title=title,
                recording=recording,
                seed=seed,
                linux=linux,
                name=name or look.value,
                from_ms=from_ms,
                to_ms=to_ms,
                skip_bytes=skip_bytes,
                labels=labels,
            )
        )

    def check_script_met(self) -> None:
        """State whether every rule in force found its packet."""
        recording = self.recording()
        if recording.script.packet_rules:
            self.check(
                "every rule of the script found its packet",
                not recording.unmet,
                detail="; ".join(recording.unmet),
            )
