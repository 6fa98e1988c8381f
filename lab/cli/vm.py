"""``lab vm -- COMMAND``: the same command on Debian's kernel."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lab.cli import doctor
from lab.cli.output import Format, OutputOption, print_json
from lab.datapath.build import cache_directory
from lab.errors import InputError, KernelError
from lab.kernel import vm as machine

app = typer.Typer()

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Difference:
    """An ability that only one of the two kernels has."""

    ability: str
    title: str
    here: str
    there: str


@app.command()
def vm(
    command: Annotated[
        list[str] | None, typer.Argument(help="What to run there; put -- before it.")
    ] = None,
    memory: Annotated[int, typer.Option(help="The machine's memory in MiB.")] = machine.MEMORY_MIB,
    output: OutputOption = Format.TABLE,
) -> int:
    """Run COMMAND as root on Debian's kernel, in a virtual machine, and pass on its exit code.

    Files, paths and Python environment are this machine's; the repository and the working folder
    are writable; its standard input is empty. Without a command: print where the two kernels'
    answers to `lab doctor` differ.
    """
    if machine.inside():
        raise InputError("this is already the virtual machine", hint="run the command directly")
    machine.require_root()
    guest = machine.find_guest()
    if not command:
        return _compare(guest, output)
    return machine.run_inside(
        command,
        guest=guest,
        cwd=Path.cwd(),
        repository=REPOSITORY,
        on_wait=progress(guest),
        memory_mib=memory,
        writable=(cache_directory(),),
    )


def _compare(guest: machine.Guest, output: Format) -> int:
    here = {line.ability: line for line in doctor.report()}
    with tempfile.TemporaryDirectory(prefix="lab-outbox-") as folder:
        # through a file: the console of the machine carries the kernel's own messages, too
        ask = f'"$0" -P -m lab doctor -o json >{machine.OUTBOX}/answers.json'
        code = machine.run_inside(
            ["sh", "-c", ask, sys.executable],
            guest=guest,
            cwd=REPOSITORY,
            repository=REPOSITORY,
            on_wait=progress(guest),
            outbox=Path(folder),
        )
        # 3 says that something is missing there, which is an answer
        if code not in (0, doctor.KERNEL_CANNOT):
            raise KernelError(f"`lab doctor` ended with {code} inside", hint="see above")
        there = json.loads((Path(folder) / "answers.json").read_text())
    differences = [
        Difference(
            line["ability"], line["title"], str(here[line["ability"]].answer), line["answer"]
        )
        for line in there
        # `machine` is about root, tools and mounts, which are not the kernel's doing
        if line["answer"] != here[line["ability"]].answer and line["group"] != "machine"
    ]
    if output is Format.JSON:
        print_json({"kernel": guest.release, "differences": differences})
        return 0
    typer.echo(f"{'':<30} {'here':<8} Linux {guest.release}")
    for each in differences:
        typer.echo(f"{each.title:<30} {each.here:<8} {each.there}")
    return 0


def progress(guest: machine.Guest) -> Callable[[float, bool], None]:
    """Return a callback that tells on standard error how far the boot is, and stops once it is."""
    how = "KVM" if guest.kvm else "software emulation, slow: no usable KVM"
    live = sys.stderr.isatty()
    told = False
    line = f"lab vm: booting Linux {guest.release} ({how})"
    typer.echo(line, err=True)

    def show(seconds: float, running: bool) -> None:
        nonlocal told
        if told:
            return
        if running:
            told = True
            clear = "\r\033[K" if live else ""
            typer.echo(f"{clear}lab vm: up after {seconds:.0f} s", err=True)
        elif live:
            typer.echo(f"\r{seconds:4.0f} s", nl=False, err=True)

    return show
