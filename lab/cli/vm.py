"""``lab vm -- COMMAND``: the same command on Debian's kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lab.errors import InputError
from lab.kernel import vm as machine

app = typer.Typer()

REPOSITORY = Path(__file__).resolve().parents[2]


@app.command()
def vm(
    command: Annotated[
        list[str] | None, typer.Argument(help="What to run there; put -- before it.")
    ] = None,
    memory: Annotated[int, typer.Option(help="The machine's memory in MiB.")] = machine.MEMORY_MIB,
) -> int:
    """Run COMMAND as root on Debian's kernel, in a virtual machine, and pass on its exit code.

    Files, paths and Python environment are this machine's; the repository and the working folder
    are writable. Without a command: print what that kernel can do that this one cannot.
    """
    if machine.inside():
        raise InputError("this is already the virtual machine", hint="run the command directly")
    guest = machine.find_guest()
    if not command:
        raise InputError("no command", hint="lab vm -- COMMAND")
    return machine.run_inside(
        command,
        guest=guest,
        cwd=Path.cwd(),
        repository=REPOSITORY,
        on_wait=progress(guest),
        memory_mib=memory,
    )


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
