"""What can go wrong, grouped by what the reader does next; every error carries a hint.

The command line prints ``message`` and ``hint`` and exits with ``exit_code``:
1 a check failed, 2 wrong usage or input, 3 this kernel cannot do it.
"""

from __future__ import annotations


class LabError(Exception):
    """Base of every error the lab raises on purpose.

    Attributes:
        message: names the object and the cause, one sentence.
        hint: the next action for the reader; may be empty only where none exists.
        exit_code: the process exit code the command line uses for it.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(LabError):
    """A file, a flag or a value given by the user is wrong: fix it and run again."""


class TopologyError(InputError):
    """A topology describes something that cannot be built: fix the topology."""


class PrerequisiteError(LabError):
    """Something outside the lab is missing (root, clang, a mount): install or enable it."""


class UnsupportedError(LabError):
    """The running kernel cannot do this; the hint names where it can (``lab vm -- ...``)."""

    exit_code = 3


class BuildError(LabError):
    """clang refused a BPF source; the message carries what clang said."""


class VerifierError(LabError):
    """The kernel's verifier refused a program.

    The message carries the C line and the last lines of the verifier's log.
    """


class KernelError(LabError):
    """A system call or netlink request failed: operation, object and errno are in the message."""

    exit_code = 1


class CheckFailed(LabError):
    """A statement about the network did not hold: statement, expected and observed values."""

    exit_code = 1
