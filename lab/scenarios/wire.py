"""The stage of an experiment with two hosts on a wire: sentences, exact outcomes, pictures."""

from __future__ import annotations

from lab.scenarios.check import Sentences
from lab.wire import Bench, Look, Picture, Recording, TwoHosts, Way
from lab.wire.recording import Lateness

COUNTED = (
    "TCPTimeouts",
    "TCPFastRetrans",
    "TCPSlowStartRetrans",
    "TCPLossProbes",
    "TCPRenoRecovery",
    "TCPSackRecovery",
    "TCPDSACKRecv",
    "TCPDSACKOldSent",
    "TCPWinProbe",
    "TCPKeepAlive",
    "TCPAbortOnTimeout",
    "ListenOverflows",
    "TcpRetransSegs",
    "TcpInCsumErrors",
    "UdpRcvbufErrors",
)
"""What a host counts when something goes wrong, by the names of ``nstat``."""


class WireStage(Sentences, Bench):
    """Two live hosts that also take down sentences.

    Attributes:
        effects: statements that hold only because of the wire's script; without the script each
            must fail, and a test deletes it to see.
        outcome: what must be exactly the same in every run, by name.
        pictures: what is to be drawn of the experiment.
        lateness: how punctual the wire was, once the experiment has ended.
    """

    def __init__(self, hosts: TwoHosts) -> None:
        super().__init__(hosts)
        self.checks = []
        self.effects: list[str] = []
        self.outcome: list[tuple[str, object]] = []
        self.pictures: list[Picture] = []
        self.lateness = Lateness(packets=0, p50_us=0.0, p99_us=0.0, max_us=0.0)
        self._varies = ""

    def effect(self, statement: str, holds: object, *, detail: str = "") -> bool:
        """Take down a sentence that is true only because of the wire's script."""
        self.effects.append(statement)
        return self.check(statement, holds, detail=detail)

    def exactly(self, name: str, value: object) -> None:
        """Take down something that has to be the same in every run."""
        self.outcome.append((name, value))

    def varies(self, reason: str) -> None:
        """Leave the order of segments out of the exact outcome, for a reason.

        What :meth:`exactly` takes down is compared all the same.
        """
        self._varies = reason

    def picture(
        self,
        look: Look,
        title: str,
        recording: Recording,
        *,
        seed: str = "",
        linux: str = "",
        note: str = "",
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
            note: what to look at, or what cannot be seen on the wire.
            name: of the file; the look's name if empty.
            from_ms: where the picture begins, in milliseconds since the first packet.
            to_ms: where it ends.
            skip_bytes: of the client's stream; the picture counts from the byte after them.
            labels: names of the connections, in the order of their first data; for datagrams,
                what became of each.
        """
        self.pictures.append(
            Picture(
                look=look,
                title=title,
                recording=recording,
                seed=seed,
                linux=linux,
                note=note,
                name=name or look.value,
                from_ms=from_ms,
                to_ms=to_ms,
                skip_bytes=skip_bytes,
                labels=labels,
            )
        )

    def finish(self) -> None:
        """Take down what every experiment repeats, and whether each rule found its packet.

        Exactly repeated are what each side sent and what became of it, in order, and what its
        kernel counts about repairing losses. Events of tracepoints are evidence for statements,
        and no part of it: the kernel now and then loses one while anybody on the machine attaches
        to the same tracepoint or lets go of it, as every experiment that begins or ends does.
        """
        recording = self.recording()
        self.lateness = recording.lateness()
        if not self._varies:
            for way, name in ((Way.TO_SERVER, "client"), (Way.TO_CLIENT, "server")):
                self.exactly(f"{name} sends", recording.ladder(way))
            for name, counters in zip(("client", "server"), recording.counters, strict=True):
                counted = tuple((key, counters[key]) for key in COUNTED if counters[key])
                self.exactly(f"{name} counts", counted)
        if recording.script.packet_rules:
            self.check(
                "every rule of the script found its packet",
                not recording.unmet,
                detail="; ".join(recording.unmet),
            )
