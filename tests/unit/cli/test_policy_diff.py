"""``lab policy diff`` with files that are no truth tables: they are named, nothing breaks."""

import pytest

from lab.cli.root import run

FILES = {
    "not JSON at all": ("{bad", "no valid YAML"),
    "a list of something else": ('[{"name": "x"}]', "is no truth table"),
}


@pytest.mark.parametrize(("text", "said"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_table_is_named(tmp_path, capsys, text, said):
    path = tmp_path / "table.json"
    path.write_text(text)
    assert run(["policy", "diff", str(path), str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and said in error and "bug" not in error
