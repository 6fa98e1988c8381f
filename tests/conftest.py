"""Shared by all tests: live ones need root, and say so when they are skipped."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("live") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root: builds network namespaces"))


@pytest.fixture(autouse=True, scope="session")
def registry_of_its_own(tmp_path_factory):
    """Tests keep their labs apart from the user's."""
    folder = tmp_path_factory.mktemp("run-lab")
    before = os.environ.get("LAB_RUN_DIR")
    os.environ["LAB_RUN_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["LAB_RUN_DIR"]
    else:
        os.environ["LAB_RUN_DIR"] = before
