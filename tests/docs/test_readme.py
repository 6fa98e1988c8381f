"""The README says what is true: its files exist, its commands and its code run."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from lab.cli.registry import ROWS
from lab.kernel import process

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
COMMANDS = [line for kind, _, code in BLOCKS if kind == "sh" for line in code.splitlines()]
TAKES_ITSELF_TO_RUN = "sudo ./lab.sh test"


def code(name):
    return next(text for kind, word, text in BLOCKS if (kind, word) == ("python", name))


def run(arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return process.run(
        [sys.executable, *arguments], cwd=folder, env=environment, check=False, timeout_s=120
    )


def test_it_opens_with_a_picture_and_two_commands():
    picture = re.search(r"!\[.+?\]\((.+?)\)", TEXT)
    assert (ROOT / picture[1]).stat().st_size < 400_000
    assert BLOCKS[0][2] == "sudo ./lab.sh demo\nsudo ./lab.sh test\n"
    assert TEXT.index(picture[0]) < TEXT.index("```sh") < 400


def test_every_command_named_exists():
    named = set(re.findall(r"(?:lab\.sh|`lab) ([a-z]+)", TEXT))
    assert named - {row.name for row in ROWS} == set()


def test_every_file_named_exists():
    named = re.findall(r"(?:topologies|notebooks|scenarios|docs)/[\w./]*", TEXT)
    assert [name for name in named if not (ROOT / name.rstrip(".")).exists()] == []


@pytest.mark.live
def test_the_commands_run_in_their_order(tmp_path):
    for folder in ("topologies", "notebooks", "scenarios"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for line in COMMANDS:
        if line == TAKES_ITSELF_TO_RUN:
            continue
        words = shlex.split(line.removeprefix("sudo ").removeprefix("./lab.sh "))
        done = run(["-m", "lab", *words], tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert "<svg" in (tmp_path / "way.html").read_text()


@pytest.mark.live
def test_the_scenario_holds_and_prints_what_is_shown(tmp_path):
    (tmp_path / "identity_travels.py").write_text(code("scenario"))
    done = run(["-m", "lab", "run", "identity_travels.py"], tmp_path)
    assert done.returncode == 0, done.stdout
    shown = next(text for kind, _, text in BLOCKS if kind == "text")
    seconds = re.compile(r"\([\d.]+ s\)")
    assert seconds.sub("", shown).strip() in seconds.sub("", done.stdout)


@pytest.mark.live
def test_the_regression_test_passes(tmp_path):
    (tmp_path / "test_shop.py").write_text(code("test"))
    done = run(["-m", "pytest", "-q", "-p", "lab.testing", "."], tmp_path)
    assert "1 passed" in done.stdout, done.stdout


def test_the_topology_is_one(tmp_path):
    (tmp_path / "mine.py").write_text(code("topology"))
    done = run(["-m", "lab", "graph", "mine.py"], tmp_path)
    assert "mine: 2 nodes, 2 pods" in done.stdout


def test_the_ladder_shown_has_all_nineteen_steps():
    ladder = [text for kind, _, text in BLOCKS if kind == "text"][1]
    numbers = re.findall(r"^[✓~·] +(\d+) ", ladder, re.M)
    assert sorted({int(number) for number in numbers}) == list(range(1, 20))
