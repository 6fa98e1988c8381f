"""Objects are compiled once per content, whole or not at all."""

import os
import shutil
from concurrent.futures import ProcessPoolExecutor

import pytest

from lab.datapath import build as building
from lab.datapath.build import SOURCES, build
from lab.errors import BuildError, PrerequisiteError
from lab.layouts.attach import OBJECTS

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")

GOOD = '#include "lib/a.h"\nint entry(void) { return A; }\n'
BAD = "int entry(void)\n{\n\treturn oops;\n}\n"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "bpf" / "lib").mkdir(parents=True)
    (tmp_path / "bpf" / "lib" / "a.h").write_text("#define A 1\n")
    (tmp_path / "bpf" / "x.c").write_text(GOOD)
    return tmp_path


def compiled(tree):
    """Names of the sources really compiled by one build of x.c, and the object."""
    lines: list[str] = []
    (path,) = build([tree / "bpf" / "x.c"], root=tree / "bpf", progress=lines.append)
    return lines, path


def test_the_second_build_compiles_nothing(tree):
    first, path = compiled(tree)
    second, again = compiled(tree)
    assert (first, second) == (["compiling x.c"], [])
    assert path == again


CHANGES = {
    "its source": ("x.c", GOOD + "int b;\n"),
    "a header": ("lib/a.h", "#define A 2\n"),
}


@pytest.mark.parametrize(("name", "content"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_compiles_again(tree, name, content):
    _, before = compiled(tree)
    (tree / "bpf" / name).write_text(content)
    lines, after = compiled(tree)
    assert lines == ["compiling x.c"]
    assert after != before


def test_another_flag_compiles_again(tree):
    compiled(tree)
    lines: list[str] = []
    flags = [*building.FLAGS, "-DX"]
    build([tree / "bpf" / "x.c"], root=tree / "bpf", flags=flags, progress=lines.append)
    assert lines == ["compiling x.c"]


def test_a_source_that_does_not_compile_is_quoted_with_its_line(tree):
    (tree / "bpf" / "x.c").write_text(BAD)
    with pytest.raises(BuildError, match=r"x\.c:3:9: error: use of undeclared identifier 'oops'"):
        compiled(tree)
    assert not list((tree / "cache").iterdir())


def test_a_missing_source_is_named(tree):
    with pytest.raises(BuildError, match="y.c: No such file"):
        build([tree / "bpf" / "y.c"], root=tree / "bpf")


def test_without_clang_the_error_says_what_to_install(tree, monkeypatch):
    monkeypatch.setenv("PATH", str(tree))
    monkeypatch.setattr("lab.kernel.process.SBIN", ())
    with pytest.raises(PrerequisiteError) as caught:
        compiled(tree)
    assert "apt install clang" in caught.value.hint


def test_a_cache_that_cannot_be_made_is_a_clear_error(tree, monkeypatch):
    (tree / "file").write_text("")
    monkeypatch.setenv("LAB_CACHE_DIR", str(tree / "file" / "cache"))
    with pytest.raises(PrerequisiteError, match="build cache") as caught:
        compiled(tree)
    assert "LAB_CACHE_DIR" in caught.value.hint


def test_two_processes_may_build_at_once(tree):
    with ProcessPoolExecutor(2) as pool:
        one, two = pool.map(compiled, [tree, tree])
    assert one[1] == two[1]
    assert [path.suffix for path in (tree / "cache").iterdir()] == [".o"], "nothing half-written"


def change_often(tree, times):
    """Build as many versions; return their objects, each made to look a day old."""
    made = []
    for number in range(times):
        (tree / "bpf" / "x.c").write_text(GOOD + f"/* {number} */\n")
        made.append(compiled(tree)[1])
        os.utime(made[-1], ns=(number, number))
    return made


def test_old_builds_are_forgotten(tree):
    made = change_often(tree, 12)
    assert [path.exists() for path in made] == [False] * 4 + [True] * 8


def test_a_build_that_was_asked_for_lately_is_kept(tree):
    first, *others = change_often(tree, 8)
    (tree / "bpf" / "x.c").write_text(GOOD + "/* 0 */\n")
    assert compiled(tree) == ([], first), "used, and so not old any more"
    (tree / "bpf" / "x.c").write_text(GOOD + "/* another */\n")
    compiled(tree)
    assert (first.exists(), others[0].exists()) == (True, False)


def test_the_datapath_compiles():
    assert all(path.exists() for path in build([SOURCES / f"{name}.c" for name in OBJECTS]))
