"""Scenes the tables run in; one per configuration and test module."""

import pytest

from lab.kernel.syscalls import raise_file_limit
from tests.datapath.scene import Scene


def pytest_collection_modifyitems(items):
    for item in items:
        if "/tests/datapath/" in str(item.path):
            item.add_marker(pytest.mark.live)


OPEN_AT_ONCE = 3  # a scene holds some 200 descriptors


@pytest.fixture(scope="session", autouse=True)
def _room_for_scenes():
    """Four scenes do not fit the usual limit of 1024 open files."""
    raise_file_limit()


@pytest.fixture(scope="module")
def scenes():
    """Makes scenes by configuration and keeps the last few of a module."""
    made = {}

    def scene(**config):
        key = tuple(sorted(config.items()))
        if key not in made and len(made) == OPEN_AT_ONCE:
            made.pop(next(iter(made))).close()
        made[key] = made.pop(key, None) or Scene(**config)
        made[key].forget()
        return made[key]

    yield scene
    for one in made.values():
        one.close()


@pytest.fixture
def scene(scenes):
    """The default: tunnel, services, no policy."""
    return scenes()
