"""The lock file pins versions and files, and leaves it to pip's own settings where they are."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"([\w.-]+)==[\w.]+( +--hash=sha256:[0-9a-f]{64})+")


def pins() -> list[str]:
    """One entry a line, as pip reads it: a backslash at the end continues the line."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n   ", "")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_every_entry_is_a_version_with_hashes_and_nothing_else() -> None:
    assert [line for line in pins() if not PIN.fullmatch(line)] == []


def test_no_registry_is_named() -> None:
    assert not any("/" in line for line in pins())
    assert "http" not in (ROOT / "lab.sh").read_text()


def test_whatever_the_lab_declares_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    declared = [line for part in (project["dependencies"], *extras) for line in part]
    names = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in declared}
    assert names - {PIN.match(line)[1].lower().replace("_", "-") for line in pins()} == set()
