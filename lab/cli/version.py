"""``lab version``: what to put into a bug report."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata

import typer

from lab.cli.output import Format, OutputOption, print_json
from lab.kernel import process

app = typer.Typer()

PACKAGES = ("pyroute2", "scapy", "typer", "rich", "matplotlib", "pytest", "virtme-ng")
PROGRAMS = (("clang", "--version"), ("bpftool", "version"), ("ip", "-V"), ("tshark", "--version"))


@dataclass(frozen=True, slots=True)
class Version:
    """Name of a part and the version found; empty if the part is not installed."""

    part: str
    version: str


@app.command()
def version(output: OutputOption = Format.TABLE) -> None:
    """Print the versions of the lab, the kernel and the tools it uses."""
    found = versions()
    if output is Format.JSON:
        print_json(found)
        return
    for line in found:
        typer.echo(f"{line.part:<12} {line.version or 'not installed'}")


def versions() -> tuple[Version, ...]:
    """Return the versions of everything whose behaviour shows in the lab's results."""
    return (
        Version("lab", _package("ebpf-datapath-lab") or "not installed, run from its sources"),
        Version("kernel", platform.release()),
        Version("python", platform.python_version()),
        *(Version(name, _package(name)) for name in PACKAGES),
        *(Version(name, _program(name, flag)) for name, flag in PROGRAMS),
    )


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _program(name: str, flag: str) -> str:
    if process.find(name) is None:
        return ""
    lines = process.run([name, flag], check=False).stdout.splitlines()
    return lines[0].strip() if lines else ""
