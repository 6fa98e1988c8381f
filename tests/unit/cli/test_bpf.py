"""``lab bpf`` is on the command line, and asks which lab if that is not clear."""

import pytest

from lab.cli import registry, root


def test_every_command_of_the_table_can_be_loaded():
    for row in registry.ROWS:
        assert root.load(row)


WORDS = ("ct list global", "nat list", "lb list", "ipcache list", "endpoint list", "tunnel list")


@pytest.mark.parametrize("words", [*WORDS, "metrics list", "policy get 1", "maps"])
def test_without_a_lab_the_reader_is_asked_which(words, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUN_DIR", str(tmp_path))
    assert root.run(["bpf", *words.split()]) == 2
    assert "--lab NAME" in capsys.readouterr().err
