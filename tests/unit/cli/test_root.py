"""The command line as a stranger meets it: wrong words, failures, interruptions."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli import registry, root
from lab.errors import CheckFailed, InputError, LabError, UnsupportedError

REPO = Path(__file__).resolve().parents[3]


def lab(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        capture_output=True,
        text=True,
        cwd=REPO,
        env={**os.environ, **environment},
        timeout=30,
    )


MISUSE = {
    "an unknown command names the nearest one": (["verison"], "Did you mean 'version'"),
    "an unknown option is named": (["version", "--nope"], "--nope"),
    "an unknown output format lists the formats": (["version", "-o", "yaml"], "json"),
    "a word too many is named": (["version", "extra"], "extra"),
}


@pytest.mark.parametrize(("words", "expected"), MISUSE.values(), ids=MISUSE.keys())
def test_wrong_usage_ends_with_2_and_two_lines(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = root.run(words)
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.startswith("error: ") and expected in said.err
    assert "hint: lab" in said.err and len(said.err.splitlines()) == 2


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Make ``lab version`` raise what the test wants."""

    def arrange(error: BaseException) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr("lab.cli.version.versions", fail)

    return arrange


ERRORS = {
    "a check that failed ends with 1": (CheckFailed("no answer", hint="look"), 1),
    "wrong input ends with 2": (InputError("no such pod", hint="see ls"), 2),
    "a kernel that cannot ends with 3": (UnsupportedError("no ESP", hint="lab vm -- ..."), 3),
}


@pytest.mark.parametrize(("error", "code"), ERRORS.values(), ids=ERRORS.keys())
def test_error_is_printed_with_its_hint(
    error: LabError, code: int, failing, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert root.run(["version"]) == code
    assert capsys.readouterr().err == f"error: {error.message}\nhint: {error.hint}\n"


def test_unexpected_error_is_one_line_unless_debugging(
    failing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ZeroDivisionError("by nought"))
    monkeypatch.delenv("LAB_DEBUG", raising=False)
    assert root.run(["version"]) == 1
    assert "Traceback" not in (said := capsys.readouterr().err)
    assert "unexpected ZeroDivisionError: by nought" in said and "--debug" in said
    monkeypatch.setenv("LAB_DEBUG", "1")
    assert root.run(["version"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_ends_with_130_and_no_noise(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert root.run(["version"]) == 130
    assert capsys.readouterr().err == ""


def test_python_m_lab_is_the_command() -> None:
    done = lab("version", "-o", "json")
    assert done.returncode == 0
    assert "kernel" in {entry["part"] for entry in json.loads(done.stdout)}


def test_missing_programs_are_reported_not_raised() -> None:
    done = lab("version", "-o", "json", PATH="/nonexistent")
    assert done.returncode == 0 and not done.stderr


def test_help_lists_every_command_without_loading_it() -> None:
    code = (
        "import sys; from lab.cli import root; root.run(['--help']);"
        "print(sorted(m for m in sys.modules if m.startswith('lab.cli.')), file=sys.stderr);"
        "print([m for m in ('pyroute2', 'scapy', 'yaml') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert all(row.name in done.stdout and row.help[:40] in done.stdout for row in registry.ROWS)
    assert done.stderr == "['lab.cli.registry', 'lab.cli.root']\n[]\n"


@pytest.mark.parametrize("row", registry.ROWS, ids=lambda row: row.name)
def test_every_registered_command_loads_and_has_help(
    row: registry.Row, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run([row.name, "--help"]) == 0
    assert f"lab {row.name}" in capsys.readouterr().out


def commands_below(row: registry.Row) -> list[str]:
    module, _, attribute = row.target.partition(":")
    found = getattr(importlib.import_module(f"lab.cli.{module}"), attribute or "app")
    groups = {group.name: group.typer_instance for group in found.registered_groups}
    names = [command.name for command in found.registered_commands]
    names += [
        f"{name} {below.name}" for name, app in groups.items() for below in app.registered_commands
    ]
    # an application of one command is that command
    return [f"{row.name} {name}" for name in names] if len(names) > 1 else []


@pytest.mark.parametrize("row", registry.ROWS, ids=lambda row: row.name)
def test_every_command_below_has_help(
    row: registry.Row, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in commands_below(row):
        assert root.run([*words.split(), "--help"]) == 0, words
        assert f"lab {words}" in capsys.readouterr().out


def test_output_to_a_closed_pipe_is_not_an_error() -> None:
    line = f"'{sys.executable}' -m lab --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=REPO)
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_no_color_is_respected() -> None:
    assert "\033[" not in lab("verison", NO_COLOR="1", FORCE_COLOR="").stderr
