"""Every notebook: readable (prose, short cells, nothing stored), and runs to its end as root."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


def read(path):
    return nbformat.read(path, as_version=4)


def cells(path, kind):
    return [cell for cell in read(path).cells if cell.cell_type == kind]


def lines_of(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_nothing_is_stored(path):
    code = cells(path, "code")
    assert [cell.outputs for cell in code if cell.outputs] == []
    assert {cell.execution_count for cell in code} == {None}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_prose_is_at_least_as_much_as_code_and_cells_are_short(path):
    code, prose = cells(path, "code"), cells(path, "markdown")
    assert len(prose) >= len(code)
    assert max(len(lines_of(cell)) for cell in code) <= 15
    assert len(code) <= 40


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_asks_predicts_runs_compares_and_has_an_exercise(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    wanted = ("**Question.**", "## Predict", "## Run", "## Compare", "## Exercise")
    assert [word for word in wanted if word not in text] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_uses_no_shell_magic(path):
    starts = [line.lstrip()[:1] for cell in cells(path, "code") for line in lines_of(cell)]
    assert not {"!", "%"} & set(starts)


def executed(path, **first):
    """Run a notebook in a kernel of its own and return it with outputs."""
    notebook = read(path)
    for cell in notebook.cells:
        for name, value in first.items():
            cell.source = cell.source.replace(f"{name} = ...", f"{name} = {value!r}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(ROOT)}}).execute(
        env=environment
    )
    return notebook


def texts(notebook):
    return "\n".join(
        str(output.get("data", {}).get("text/plain", "")) + str(output.get("text", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )


ANSWERS = {
    "01_two_nodes": {
        "vni": 256,
        "wrapped_at": "eth0",
        "outer_bytes": 50,
        "through_cilium_host": False,
        "first_program": "from-container",
    },
    "02_policy": {
        "node": "beta",
        "hook": "from-overlay",
        "identity": 256,
        "crossed": True,
        "web_arrives": True,
    },
    "03_service": {
        "there": "lxcclient",
        "there_program": "from-container",
        "back_node": "alpha",
        "on_the_wire": "10.0.2.10",
        "ports_changed": True,
    },
}


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_it_runs_and_tells_right_predictions_from_wrong_ones(name):
    """All answers right but the first, which is made wrong."""
    answers = dict(ANSWERS[name])
    first = next(iter(answers))
    answers[first] = "nowhere"
    text = texts(executed(ROOT / "notebooks" / f"{name}.ipynb", **answers))
    assert "4 of 5 predictions came true" in text
    assert f"you said nowhere, observed: {ANSWERS[name][first]}" in text


def test_every_notebook_has_its_answers():
    assert set(NAMES) == set(ANSWERS)
