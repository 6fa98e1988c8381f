"""``lab notebook``: list the notebooks, run one without Jupyter, keep the result as a page."""

from __future__ import annotations

import ast
import os
from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.cli.output import Format, OutputOption, print_json
from lab.errors import CheckFailed, InputError, PrerequisiteError
from lab.names import did_you_mean

app = typer.Typer(no_args_is_help=True, add_completion=False)

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
_CELL_TIMEOUT_S = 180
_STYLE = """
body{max-width:60em;margin:2em auto;padding:0 1em;font:17px/1.5 system-ui,"DejaVu Sans",sans-serif;
background:#fff;color:#15191c}
pre{overflow-x:auto}.in{background:#f3f5f7;border-left:4px solid #0072b2;padding:.6em .8em}
code{background:#f3f5f7}img,svg{max-width:100%;height:auto}
"""


@app.command("list")
def list_command(output: OutputOption = Format.TABLE) -> None:
    """List the notebooks and what each one asks."""
    found = [{"name": _name(path), "title": _title(path)} for path in _all()]
    if output is Format.JSON:
        print_json(found)
        return
    for row in found:
        typer.echo(f"{row['name']:<26} {row['title']}")


@app.command("run")
def run_command(
    notebook: Annotated[str, typer.Argument(help="Name in notebooks/, or a file.")],
    predict: Annotated[
        list[str] | None,
        typer.Option("-p", "--predict", help="NAME=VALUE instead of the `...` of a prediction."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the executed notebook here.")] = None,
) -> None:
    """Run a notebook to its end, as root, and print what its cells print.

    Exit code 1 if a cell raises.
    """
    from lab.runtime.start import require_root

    path = find(notebook)
    require_root()
    executed = execute(path, dict(_prediction(text) for text in predict or []))
    for text in texts(executed):
        typer.echo(text)
    if html is not None:
        try:
            html.write_text(as_page(executed, _title(path)), encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cannot write {html}: {error.strerror}", hint="choose another place"
            ) from None


def find(name: str) -> Path:
    """Return the file of a notebook.

    Raises:
        InputError: there is none; the hint names the nearest.
    """
    for candidate in (Path(name), FOLDER / name, FOLDER / f"{name}.ipynb"):
        if candidate.is_file():
            return candidate
    known = [_name(path) for path in _all()]
    raise InputError(f"notebook {name!r} does not exist", hint=did_you_mean(name, known))


def _all() -> list[Path]:
    return sorted(FOLDER.rglob("*.ipynb"))


def _name(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


def execute(path: Path, predictions: dict[str, object]) -> Any:  # noqa: ANN401 (nbformat's node)
    """Return the notebook with its outputs, after running every cell in a fresh process.

    Args:
        path: of the notebook.
        predictions: name -> value, for lines ``name = ...``.

    Raises:
        InputError: no cell asks for such a prediction.
        CheckFailed: a cell raised; the message is the end of its traceback.
        PrerequisiteError: the packages that run notebooks are not installed.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
    except ImportError as error:
        raise PrerequisiteError(
            f"notebooks cannot run: {error}", hint="pip install 'ebpf-datapath-lab[notebook]'"
        ) from error
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    _predict(notebook, predictions)
    root = FOLDER.parent
    client = NotebookClient(
        notebook, timeout=_CELL_TIMEOUT_S, resources={"metadata": {"path": str(root)}}
    )
    # cells run in a process of their own: it has to find this very package
    before = os.environ.get("PYTHONPATH", "")
    paths = f"{root}{os.pathsep}{before}" if before else str(root)
    try:
        client.execute(env={**os.environ, "PYTHONPATH": paths})
    except CellExecutionError as error:
        said = str(error).strip().splitlines()[-3:]
        raise CheckFailed(
            f"{path.name}: a cell raised: {' '.join(said)}", hint="run it in Jupyter to see it all"
        ) from None
    return notebook


def _predict(notebook: Any, predictions: dict[str, object]) -> None:  # noqa: ANN401
    # a prediction is a line `name = ...`: the dots are what the reader replaces
    open_lines = {
        line.removesuffix(" = ..."): cell
        for cell in notebook.cells
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
        if line.endswith(" = ...")
    }
    for name, value in predictions.items():
        if name not in open_lines:
            raise InputError(
                f"no prediction is called {name!r}", hint=did_you_mean(name, open_lines)
            )
        cell = open_lines[name]
        lines = cell.source.splitlines()
        # the cell alone is changed: the file keeps its dots for the next reader
        lines[lines.index(f"{name} = ...")] = f"{name} = {value!r}"
        cell.source = "\n".join(lines)


def _prediction(text: str) -> tuple[str, object]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise InputError(f"prediction {text!r} has no value", hint="write -p NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        # a bare word is meant as text
        return name, value


def texts(notebook: Any) -> list[str]:  # noqa: ANN401
    """Return what the code cells printed or showed, as text."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            plain = output.get("text") or output.get("data", {}).get("text/plain", "")
            if plain.strip():
                found.append(plain.rstrip("\n"))
    return found


def as_page(notebook: Any, title: str) -> str:  # noqa: ANN401
    """Return an executed notebook as one self-contained HTML page."""
    # rich brings it along
    from markdown_it import MarkdownIt

    render = MarkdownIt("commonmark").enable("table").render
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(render(cell.source))
            continue
        parts.append(f'<pre class="in">{escape(cell.source)}</pre>')
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            plain = output.get("text") or data.get("text/plain", "")
            parts.append(data.get("text/html") or f"<pre>{escape(plain)}</pre>")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _title(path: Path) -> str:
    import json

    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            return "".join(cell["source"]).splitlines()[0].lstrip("# ")
    return path.stem
