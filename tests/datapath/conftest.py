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


ONE_BY_ONE, AT_ONCE = {"inline_tail_calls": False}, {"inline_tail_calls": True}
BOTH_WAYS = (
    "conntrack", "custom", "fragments", "from_container", "malformed", "nodeport", "overlay",
    "policy", "policy_against_oracle", "services", "to_container",
)  # fmt: skip
"""Tables that must not change with the number of tail calls a pod's packet takes."""


def pytest_generate_tests(metafunc):
    name = metafunc.module.__name__.rpartition(".test_")[2]
    if name in BOTH_WAYS and "scenes" in metafunc.fixturenames:
        ways = {"one by one": ONE_BY_ONE, "at once": AT_ONCE}
        metafunc.parametrize("scenes", ways.values(), ids=ways, indirect=True, scope="module")


@pytest.fixture(scope="module")
def scenes(request):
    """Makes scenes by configuration and keeps the last few of a module."""
    made = {}
    always = getattr(request, "param", ONE_BY_ONE)

    def scene(**config):
        config = always | config
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
