"""``lab test``: the project's own tests, on this kernel and on the second one."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lab.errors import InputError
from lab.kernel import process

app = typer.Typer()

ROOT = Path(__file__).resolve().parents[2]


class SecondKernel(StrEnum):
    """Which tests run on Debian's kernel in a virtual machine."""

    MARKED = "marked"
    ALL = "all"
    NONE = "none"


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(
    context: typer.Context,
    keyword: Annotated[
        str, typer.Option("-k", help="Only tests whose name matches, as in pytest.")
    ] = "",
    vm: Annotated[
        SecondKernel, typer.Option(help="Which tests run on the second kernel.")
    ] = SecondKernel.MARKED,
) -> int:
    """Run the tests; whatever else is given goes on to pytest.

    Tests that need root or an ability this kernel lacks are skipped with their reason. The
    benchmarks (tests/bench) print figures instead of passing or failing and are not part of it.
    """
    if not (ROOT / "tests").is_dir():
        raise InputError(
            f"there are no tests under {ROOT}", hint="run lab test from a clone of the repository"
        )
    arguments = [*(["-k", keyword] if keyword else []), *context.args]
    command = [sys.executable, "-m", "pytest", *arguments]
    # files that are named are run as they are, benchmarks too
    if not any((ROOT / word.partition("::")[0]).exists() for word in context.args):
        command += ["-m", "not bench"]
    environment = {**os.environ, "LAB_TEST_VM": vm.value}
    # the whole command over there; `marked` tests go there one by one, from here
    if vm is SecondKernel.ALL:
        command = [sys.executable, "-m", "lab", "vm", "--", *command]
    return process.call(command, env=environment, cwd=ROOT)
