"""The linters are tests: one command tells everything that is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LINTERS = {
    "ruff finds nothing": ["ruff", "check", "lab", "tests", "scenarios", "topologies"],
    "mypy --strict finds nothing in lab/": ["mypy"],
}


@pytest.mark.slow
@pytest.mark.parametrize("words", LINTERS.values(), ids=LINTERS.keys())
def test_linter(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
