"""``lab doctor``: a table for people, a list for programs, a code for scripts."""

import json

import pytest

from lab.cli import root
from lab.kernel import probe
from lab.kernel.abilities import SUBJECTS


@pytest.fixture(params=["yes", "no"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine that can do everything, or nothing."""
    answer = probe.Answer(request.param)
    reason = "" if answer is probe.Answer.YES else "not [here]"
    found = tuple(probe.Ability(subject, answer, reason) for subject in SUBJECTS)
    monkeypatch.setattr(probe, "abilities", lambda: found)
    return request.param


def test_code_tells_whether_labs_can_run(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["doctor"]) == {"yes": 0, "no": 3}[kernel]


def test_json_has_every_ability_with_its_answer(
    kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root.run(["doctor", "-o", "json"])
    lines = json.loads(capsys.readouterr().out)
    assert [line["ability"] for line in lines] == [subject.name for subject in SUBJECTS]
    assert {line["answer"] for line in lines} == {kernel}


def test_table_says_what_to_do_only_where_something_is_missing(
    kernel: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    root.run(["doctor"])
    said = capsys.readouterr().out
    assert ("lab vm -- COMMAND" in said) == (kernel == "no")
    assert ("not [here]" in said) == (kernel == "no")
