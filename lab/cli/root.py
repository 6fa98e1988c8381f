"""The top of the command line: finds the command, loads its module, turns errors into one line."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import typer
import typer.core
import typer.main

from lab.cli import registry
from lab.errors import LabError

INTERRUPTED = 130
REPORT_TO = "the project's issue tracker"
# The common base of everything typer raises about how a command was typed.
UsageProblem: type[Exception] = typer.BadParameter.__bases__[0].__bases__[0]


class LazyGroup(typer.core.TyperGroup):
    """A group whose commands are placeholders until one of them is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 (typer's own types are private)
        """Find the placeholder (or fail with suggestions), then load the real command."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        row = next((row for row in registry.ROWS if row.name == name), None)
        return name, load(row) if row else placeholder, rest


def load(row: registry.Row) -> Any:  # noqa: ANN401 (typer's command type is private)
    """Import the module of one command and return the command."""
    module_name, _, attribute = row.target.partition(":")
    module = importlib.import_module(f"lab.cli.{module_name}")
    app: typer.Typer = getattr(module, attribute or "app")
    app._add_completion = False  # completion belongs to `lab`, not to each of its commands
    return typer.main.get_command(app)


def _debug_flag(
    debug: bool = typer.Option(
        False, "--debug", envvar="LAB_DEBUG", help="Show where an unexpected error came from."
    ),
) -> None:
    """A network emulation testbed and teaching lab for the eBPF datapath of Kubernetes."""
    if debug:
        os.environ["LAB_DEBUG"] = "1"


def build() -> Any:  # noqa: ANN401 (typer's group type is private)
    """Return the command tree: the top group with one placeholder per registered command."""
    app = typer.Typer(
        cls=LazyGroup,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_debug_flag)
    # typer makes a group only of an application that has a command
    app.command("placeholder", hidden=True)(lambda: None)
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    group.commands = {
        row.name: typer.core.TyperCommand(row.name, help=row.help, rich_help_panel=row.panel)
        for row in registry.ROWS
    }
    return group


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; every error becomes a line on stderr.

    Args:
        arguments: words after ``lab``; the process's own if None.
    """
    try:
        result = build().main(arguments, prog_name="lab", standalone_mode=False)
        sys.stdout.flush()
    except LabError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    except UsageProblem as problem:
        return _usage_problem(problem)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as stop:
        # typer's own answer to a closed pipe is exit code 1.
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        return _reader_gone()
    except Exception as error:  # noqa: BLE001 (the outermost boundary: nobody gets a traceback)
        return _unexpected(error)
    return result if isinstance(result, int) else 0


def _reader_gone() -> int:
    # The reader (head, less) has enough: not an error. Keep the interpreter's last flush quiet.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _usage_problem(problem: Exception) -> int:
    context = getattr(problem, "ctx", None)
    where = context.command_path if context else "lab"
    if type(problem).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help() if context else "")
        return 0
    message = str(getattr(problem, "format_message", problem.__str__)()).rstrip(".")
    _complain(message[:1].lower() + message[1:], f"{where} --help")
    return 2


def _unexpected(error: Exception) -> int:
    if os.environ.get("LAB_DEBUG"):
        traceback.print_exception(error)
    detail = " ".join(str(error).split())
    _complain(
        f"unexpected {type(error).__name__}: {detail}",
        f"this is a bug: report it to {REPORT_TO}; lab --debug ... shows where it came from",
    )
    return 1


def _complain(message: str, hint: str) -> None:
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    red, dim, plain = ("\033[31m", "\033[2m", "\033[0m") if colour else ("", "", "")
    typer.echo(f"{red}error: {message}{plain}", err=True)
    if hint:
        typer.echo(f"{dim}hint: {hint}{plain}", err=True)
