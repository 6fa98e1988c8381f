"""``lab trace diff``: two files, compared as text, JSON and picture."""

import json

import pytest
from traces import DELIVERED, REFUSED

from lab.cli.root import run


@pytest.fixture
def files(tmp_path):
    for name, trace in {"off": DELIVERED, "on": REFUSED}.items():
        (tmp_path / f"{name}.json").write_text(trace.to_json())
    (tmp_path / "broken.json").write_text("{")
    return tmp_path


def test_two_ways_are_compared_and_the_exit_code_says_that_they_differ(files, capsys):
    assert run(["trace", "diff", str(files / "off.json"), str(files / "on.json")]) == 1
    out = capsys.readouterr().out
    assert out.split()[:3] == ["off", "│", "on"]
    assert "drop, Invalid source ip" in out


def test_the_same_way_is_no_difference(files, capsys):
    assert run(["trace", "diff", str(files / "on.json"), str(files / "on.json")]) == 0
    assert "the same way" in capsys.readouterr().out


def test_json_lists_the_differences(files, capsys):
    run(["trace", "diff", str(files / "off.json"), str(files / "on.json"), "-o", "json"])
    rows = json.loads(capsys.readouterr().out)
    assert (rows[0]["step"], rows[0]["right"]["drop_reason"]) == (8, "Invalid source ip")


def test_the_picture_goes_into_a_file(files):
    run(["trace", "diff", str(files / "off.json"), str(files / "on.json"),
         "--html", str(files / "d.html")])  # fmt: skip
    assert "way second" in (files / "d.html").read_text()


WRONG = {
    "only one trace": ["off.json"],
    "a file that is not there": ["off.json", "none.json"],
    "a file that is no trace": ["off.json", "broken.json"],
}


@pytest.mark.parametrize("names", WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_one_clear_line(files, capsys, names):
    assert run(["trace", "diff", *(str(files / name) for name in names)]) == 2
    assert "hint:" in capsys.readouterr().err
