"""The command line: one module per command, loaded only when that command is used."""

from __future__ import annotations


def main() -> None:
    """Run ``lab`` on the process's arguments and exit with its code.

    0 done, 1 a check failed, 2 wrong usage or input, 3 the kernel cannot do it, 130 interrupted;
    ``exec`` and ``vm`` pass on the code of the command they ran.
    """
    from lab.cli.root import run

    raise SystemExit(run())
