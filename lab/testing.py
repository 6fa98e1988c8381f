"""pytest plugin: a lab per test, skipped with the reason where this machine cannot build it.

Installing the package is enough; a test asks for ``lab`` and gets a running one::

    @pytest.mark.topology(topology)
    def test_server_answers(lab):
        assert_reachable(lab, "client", "server")

A test that asks for ``datapath`` gets the BPF programs without any network: it sets map entries,
sends one packet through one hook, and looks at what came of it.

Without the marker the lab is ``lab_topology``, one node with the pods *client* and *server*; a
conftest.py may define a fixture of that name instead. Labs of tests that run at the same time
(pytest-xdist) are strangers to each other.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import pytest

from lab.datapath.testrun import Datapath
from lab.errors import PrerequisiteError, UnsupportedError
from lab.model import Node, Pod, Topology
from lab.runtime import Lab
from lab.waiting import eventually

PAIR = Topology(
    name="pair",
    nodes=(Node("alpha"),),
    pods=(
        Pod("client", node="alpha", labels={"app": "client"}),
        Pod("server", node="alpha", labels={"app": "server"}),
    ),
)
"""What a test gets that does not say which topology it wants."""

_numbers = itertools.count(1)


@dataclass
class _Kept:
    """What a failing test leaves for its reader."""

    labs: list[Lab] = field(default_factory=list)
    failed: bool = False


_KEPT = pytest.StashKey[_Kept]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options to pytest's command line."""
    group = parser.getgroup("lab", "eBPF datapath lab")
    group.addoption(
        "--keep-on-fail",
        action="store_true",
        help="leave the lab of a failing test up and print how to enter it",
    )
    group.addoption(
        "--lab-engine", default="netns", help="what builds the labs: netns (default) or mininet"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin's markers."""
    config.addinivalue_line("markers", "topology(topology): the lab that the test runs in")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the reader of a failure how to enter the lab that was kept."""
    report = yield
    kept = item.stash.get(_KEPT, None)
    if kept and call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception):
        kept.failed = True
        if item.config.getoption("--keep-on-fail"):
            lines = [_shell_line(lab) for lab in kept.labs]
            report.sections.append(("lab kept up", "\n".join(lines)))
    return report


def _shell_line(lab: Lab) -> str:
    # A lab is found through its registry, which a test run may have of its own.
    folder = os.environ.get("LAB_RUN_DIR")
    prefix = f"LAB_RUN_DIR={folder} " if folder else ""
    first = (lab.topology.pods or lab.topology.nodes)[0].name
    return f"{prefix}lab shell {lab.name}/{first}    (end it: {prefix}lab down {lab.name})"


@pytest.fixture
def lab_topology(request: pytest.FixtureRequest) -> Topology:
    """The topology of the test's ``topology`` marker, or one node with client and server."""
    marker = request.node.get_closest_marker("topology")
    topology = marker.args[0] if marker and marker.args else PAIR
    if not isinstance(topology, Topology):
        raise pytest.UsageError(
            f"{request.node.nodeid}: the topology marker wants a lab.Topology, "
            f"not {type(topology).__name__}"
        )
    return topology


@pytest.fixture
def lab(request: pytest.FixtureRequest, lab_topology: Topology) -> Iterator[Lab]:
    """A running lab, taken down after the test.

    The test is skipped, with the reason, if this machine lacks something to build it.
    """
    kept = request.node.stash.setdefault(_KEPT, _Kept())
    keep = bool(request.config.getoption("--keep-on-fail"))
    live = Lab(
        lab_topology,
        name=f"{lab_topology.name}-test-{os.getpid()}-{next(_numbers)}",
        engine=request.config.getoption("--lab-engine"),
    )
    try:
        # Only a lab that does not depend on this process can outlive it.
        live.start(attached=not keep)
    except (PrerequisiteError, UnsupportedError) as error:
        pytest.skip(str(error))
    kept.labs.append(live)
    try:
        yield live
    finally:
        if keep and kept.failed:
            live.close()
        else:
            live.stop()


@pytest.fixture
def datapath() -> Iterator[Datapath]:
    """The BPF programs for single-packet runs, loaded at their first use, with empty maps.

    The test is skipped, with the reason, without root or clang.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root: loads BPF programs")
    try:
        with Datapath() as harness:
            yield harness
    except PrerequisiteError as error:
        pytest.skip(str(error))


def assert_reachable(
    lab: Lab, source: str, target: str, port: int = 80, *, within_s: float = 3.0
) -> None:
    """Require that a TCP connection from one place to another is made before the deadline.

    A server is opened at the target for the purpose.

    Raises:
        CheckFailed: it was not; the message carries the last answer.
    """
    with lab.place(target).serve_tcp(port):
        eventually(
            lambda: lab.place(source).connect(lab.place(target), port, timeout_s=within_s).ok,
            within_s=within_s,
            what=f"a connection from {source} to {target}:{port}",
        )


def assert_blocked(
    lab: Lab, source: str, target: str, port: int = 80, *, timeout_s: float = 0.5
) -> None:
    """Require that nobody answers a TCP connection although a server is listening.

    Raises:
        AssertionError: the connection was made.
    """
    with lab.place(target).serve_tcp(port):
        answer = lab.place(source).connect(lab.place(target), port, timeout_s=timeout_s)
    if answer.ok:
        pytest.fail(f"{source} reached {target}:{port}, it should have been blocked")
