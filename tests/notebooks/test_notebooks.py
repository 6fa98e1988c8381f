"""Every notebook: readable (prose, short cells, nothing stored), and runs to its end as root."""

import re
from pathlib import Path

import nbformat
import pytest

from lab.cli.notebook import as_page, execute, find, texts
from lab.cli.root import run
from lab.errors import CheckFailed

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
NAMES = [str(path.relative_to(ROOT / "notebooks").with_suffix("")) for path in NOTEBOOKS]


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
    "tcp/01_sliding_window": {"at_once": 3, "first_answer": 4001, "released": 2},
    "tcp/02_loss": {"duplicates": 3, "jump": 6001, "timeouts": 0},
    "tcp/03_timeouts": {"first_ms": 200, "factor": 2, "window": 1},
    "tcp/04_zero_window": {"probe_bytes": 0, "probe_number": 6000, "sent_twice": 0},
    "tcp/05_congestion": {"fifth_round": 16, "usual_start": 10, "after_loss": 0.5},
    "tcp/06_acknowledging": {"alone_ms": 40, "for_two": 1, "with_answer": 1.0},
    "tcp/07_opening_and_closing": {"first_data_ms": 40, "closing": 4, "closing_at_once": 3},
    "tcp/08_sticky_packets": {"segments": 3, "reads": 1, "kept": "nobody"},
    "tcp/09_keepalive": {"probe_bytes": 0, "unanswered": 3, "farewell": "RST"},
    "tcp/10_nagle": {"usual": 2, "no_delay": 5, "second": 40},
    "tcp/11_tun_and_namespaces": {"first_byte": "0x45", "ttl": 63, "crossing": 2},
    "tcp/12_without_tcp": {"all_arrive": True, "which": "first", "told": 0},
    "tcp/13_lost_or_late": {
        "overtaken_by_two": 0,
        "overtaken_by_four": 1,
        "doubled": 0,
        "spoilt": 1,
        "dropped": 1,
    },
    "tcp/14_knocking": {
        "again_ms": 1000,
        "who_asks": "client",
        "server_repeats": "SYN|ACK",
        "answers": 0,
    },
    "tcp/15_endings": {"fins": 2, "who_answers": "ACK", "resets": 1, "unread": 0},
    "tcp/16_narrow_windows": {
        "sent_twice": 0,
        "then_at_once": 2,
        "lost": 0,
        "factor": 2,
        "complaints": 2,
    },
    "tcp/17_after_a_loss": {
        "first_again": 5001,
        "no_harm": 0,
        "reno_keeps": 0.5,
        "cubic_keeps": 0.7,
        "after_timeout": 1,
    },
    "tcp/18_held_back": {"corked": 1, "forgotten_ms": 200, "both_ms": 40},
    "tcp/19_holes_and_walls": {"same_port": True, "left": 1, "largest": 500, "complaints": 0},
}


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_it_runs_and_tells_right_predictions_from_wrong_ones(name):
    """All answers right but the first, which is made wrong."""
    answers = dict(ANSWERS[name])
    first = next(iter(answers))
    answers[first] = "nowhere"
    text = "\n".join(texts(execute(find(name), answers)))
    assert f"{len(answers) - 1} of {len(answers)} predictions came true" in text
    assert f"you said nowhere, observed: {ANSWERS[name][first]}" in text


FRAMINGS = {
    "four bytes of length, then the message": "sized(message.encode())",
    "the messages, in order": "solved(stream)",
    "the message, then the separator": "f'{message}；'.encode()",
}
SOLVED = """
def sized(raw):
    return len(raw).to_bytes(4, "big") + raw


def solved(stream):
    found = []
    while stream:
        end = 4 + int.from_bytes(stream[:4], "big")
        found, stream = [*found, stream[4:end].decode()], stream[end:]
    return found
"""
JUDGED = {
    "nobody has written anything": ({}, ["not written yet"] * 3),
    "both right": (
        {"def split": "stream.decode().split('；')[:-1]"},
        ["right", "right", "not yet: ['a', 'b']"],
    ),
    "one wrong": ({"def split": "[stream.decode()]"}, ["right", "not yet: ", "not yet: "]),
}


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize(("answer", "verdicts"), JUDGED.values(), ids=JUDGED.keys())
def test_the_framings_to_complete_are_judged(answer, verdicts, tmp_path):
    notebook = read(find("tcp/08_sticky_packets"))
    for cell in notebook.cells if answer else ():
        words = FRAMINGS | (
            {"the messages, in order": answer["def split"]} if "def split" in cell.source else {}
        )
        for comment, code in words.items():
            cell.source = cell.source.replace(f"...  # {comment}", code)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SOLVED))
    nbformat.write(notebook, tmp_path / "answered.ipynb")
    text = "\n".join(texts(execute(tmp_path / "answered.ipynb", {})))
    for what, verdict in zip(("in front", "behind", "inside a message"), verdicts, strict=True):
        assert f"{what}: {verdict}" in text


EXPERIMENTS = sorted(path.stem for path in (ROOT / "scenarios" / "tcp").glob("*.py"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_its_notebook(name):
    text = "\n".join(path.read_text() for path in NOTEBOOKS)
    assert re.search(rf"\b{name}\b", text)


def test_every_notebook_has_its_answers():
    assert set(NAMES) == set(ANSWERS)


@pytest.mark.live
@pytest.mark.slow
def test_one_is_run_from_the_command_line_and_kept_as_a_page(capsys, tmp_path):
    page = tmp_path / "out.html"
    assert run(["notebook", "run", "02_policy", "-p", "node=beta", "--html", str(page)]) == 0
    assert "✓ node? beta" in capsys.readouterr().out
    assert "<svg" in page.read_text()
    assert "<h2>Predict</h2>" in page.read_text()


def test_the_notebooks_are_listed_with_what_they_ask(capsys):
    assert run(["notebook", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES


WRONG = {
    "no such notebook": (["1_two_nodes"], "did you mean '01_two_nodes'?"),
    "no such prediction": (["01_two_nodes", "-p", "vnis=1"], "did you mean 'vni'?"),
    "a prediction without value": (["01_two_nodes", "-p", "vni"], "-p NAME=VALUE"),
}


@pytest.mark.live
@pytest.mark.parametrize(("arguments", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_one_clear_line(capsys, arguments, says):
    assert run(["notebook", "run", *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.live
@pytest.mark.slow
def test_a_cell_that_raises_is_told(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    with pytest.raises(CheckFailed, match="ZeroDivisionError"):
        execute(tmp_path / "broken.ipynb", {})


def test_text_of_a_cell_cannot_break_the_page():
    cells = [nbformat.v4.new_code_cell("print('<b>')"), nbformat.v4.new_markdown_cell("# T")]
    page = as_page(nbformat.v4.new_notebook(cells=cells), "<i>")
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<h1>T</h1>" in page
