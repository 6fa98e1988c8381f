"""Sentences about the network with their truth values."""

from __future__ import annotations

from dataclasses import dataclass

from lab.kernel import probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One sentence about the network and whether it holds.

    Attributes:
        detail: what was observed, where the sentence alone does not say it.
    """

    statement: str
    holds: bool
    detail: str = ""


class Sentences:
    """Takes down what a scenario states.

    Attributes:
        checks: what has been stated so far.
    """

    checks: list[Check]

    def check(self, statement: str, holds: object, *, detail: str = "") -> bool:
        """Take down a sentence and whether it holds; the scenario goes on either way."""
        self.checks.append(Check(statement=statement, holds=bool(holds), detail=detail))
        return bool(holds)

    def can(self, ability: str) -> bool:
        """Tell whether the kernel can something, where kernels do it in different ways.

        Args:
            ability: as ``lab doctor -o json`` names it.

        Raises:
            InputError: there is no such ability.
        """
        return probe.has(ability)

    def needs(self, ability: str) -> None:
        """Return if the kernel can what the sentences from here on are about.

        What was stated before stays in the report, which then says what is missing.

        Args:
            ability: as ``lab doctor -o json`` names it.

        Raises:
            UnsupportedError: it cannot; the scenario ends here, and has not passed.
            InputError: there is no such ability.
        """
        probe.require(ability)
