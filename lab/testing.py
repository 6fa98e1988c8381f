"""pytest plugin: a lab per test, skipped with the reason where this machine cannot build it.

Installing the package is enough; a test asks for ``lab`` and gets a running one::

    @pytest.mark.topology(topology)
    def test_server_answers(lab):
        assert_reachable(lab, "client", "server")

Without the marker the lab is ``lab_topology``, one node with the pods *client* and *server*; a
conftest.py may define a fixture of that name instead. ``trace`` records packets in that lab,
``datapath`` runs the datapath's programs on single packets, ``bpf_object`` does so with a program
of one's own. Labs of tests that run at the same time (pytest-xdist) are strangers to each other.
A failing test leaves its recordings as files, named in its report.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.errors import LabError, PrerequisiteError, UnsupportedError
from lab.model import Node, Pod, Topology
from lab.runtime import Lab
from lab.waiting import eventually

if TYPE_CHECKING:
    from lab.datapath.testrun import Datapath
    from lab.kernel.bpf import ConfigValue, Loaded
    from lab.observe.recording import Recording
    from lab.trace import Trace

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
_ARTEFACTS = "lab-artefacts"


@dataclass
class _Kept:
    """What a failing test leaves for its reader."""

    labs: list[Lab] = field(default_factory=list)
    recordings: list[Recording] = field(default_factory=list)
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
    group.addoption(
        "--lab-artefacts",
        metavar="FOLDER",
        default=_ARTEFACTS,
        help=f"where a failing test leaves its recordings (default: {_ARTEFACTS})",
    )
    group.addoption(
        "--update-golden",
        action="store_true",
        help="write golden traces anew instead of comparing with them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin's markers."""
    for line in (
        "topology(topology): the lab that the test runs in",
        "needs(*abilities): skip where `lab doctor` does not find one of these",
        "datapath(**config): load-time constants of the datapath fixture",
    ):
        config.addinivalue_line("markers", line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose ``needs`` this kernel does not meet, with the reason `lab doctor` gives."""
    wanted = [name for marker in item.iter_markers("needs") for name in marker.args]
    if not wanted:
        return
    from lab.kernel.probe import require

    for name in wanted:
        try:
            require(name)
        except UnsupportedError as error:
            pytest.skip(str(error))
        except LabError as error:
            raise pytest.UsageError(f"{item.nodeid}: marker needs: {error}") from error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the reader of a failure what was recorded and how to enter the lab that was kept."""
    report = yield
    if not call.excinfo or call.excinfo.errisinstance(pytest.skip.Exception):
        return report
    own = item.stash.get(_KEPT, _Kept())
    # the lab of a module is kept at the module's node
    found = [own, *(node.stash[_KEPT] for node in item.listchain()[:-1] if _KEPT in node.stash)]
    labs = [lab for kept in found for lab in kept.labs]
    for kept in found:
        kept.failed = True
    if traces := [trace for one in own.recordings for trace in one.packets]:
        folder = _save(item, traces, labs)
        report.sections.append(("lab recordings", _recordings(traces, folder)))
    if labs and item.config.getoption("--keep-on-fail"):
        lines = [_shell_line(lab) for lab in labs]
        report.sections.append(("lab kept up", "\n".join(lines)))
    return report


_SHOWN = 3
_SAVED = 20


def _save(item: pytest.Item, traces: list[Trace], labs: list[Lab]) -> Path:
    """Write page, capture and data of each recorded packet below the artefacts folder."""
    from lab.observe.capture import write_pcapng
    from lab.report.html import write_page

    # a file name has 255 bytes at most, and the end of a node id tells more than its beginning
    name = re.sub(r"[^\w.-]+", "-", item.nodeid).strip("-")[-120:]
    chosen: str = item.config.getoption("--lab-artefacts")
    folder = item.config.invocation_params.dir / chosen / name
    folder.mkdir(parents=True, exist_ok=True)
    topology = labs[0].topology if labs else None
    for number, trace in enumerate(traces[:_SAVED], start=1):
        stem = folder / f"{number:02}-{trace.packet.protocol}"
        write_page(trace, stem.with_suffix(".html"), topology)
        stem.with_suffix(".json").write_text(trace.to_json(indent=1), encoding="utf-8")
        write_pcapng(trace, stem.with_suffix(".pcapng"))
    return folder


def _recordings(traces: list[Trace], folder: Path) -> str:
    from lab.report.ladder import ladder_text

    ladders = [ladder_text(trace, legend=False) for trace in traces[:_SHOWN]]
    more = [f"... and {len(traces) - _SHOWN} more packets"] if len(traces) > _SHOWN else []
    return "\n\n".join([*ladders, *more, f"as pages, captures and JSON in {folder}"])


def _shell_line(lab: Lab) -> str:
    # A lab is found through its registry, which a test run may have of its own.
    folder = os.environ.get("LAB_RUN_DIR")
    prefix = f"LAB_RUN_DIR={folder} " if folder else ""
    first = (lab.topology.pods or lab.topology.nodes)[0].name
    return f"{prefix}lab shell {lab.name}/{first}    (end it: {prefix}lab down {lab.name})"


@contextmanager
def _or_skip() -> Iterator[None]:
    """Skip the test where something outside of it is missing."""
    try:
        yield
    except (PrerequisiteError, UnsupportedError) as error:
        pytest.skip(str(error))


@pytest.fixture
def lab_topology(request: pytest.FixtureRequest) -> Topology:
    """The topology of the test's ``topology`` marker, or one node with client and server."""
    marker = request.node.get_closest_marker("topology")
    return _checked(request, marker.args[0] if marker and marker.args else PAIR)


def _checked(request: pytest.FixtureRequest, topology: object) -> Topology:
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
    yield from _running(request, lab_topology)


@pytest.fixture(scope="module")
def module_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One running lab for all tests of a module; its topology is the module's ``topology``.

    For tests that leave the lab as they find it. After a failing test it is kept on request as
    any other.
    """
    topology = getattr(request.module, "topology", PAIR)
    yield from _running(request, _checked(request, topology))


def _running(request: pytest.FixtureRequest, topology: Topology) -> Iterator[Lab]:
    kept = request.node.stash.setdefault(_KEPT, _Kept())
    keep = bool(request.config.getoption("--keep-on-fail"))
    live = Lab(
        topology,
        # workers of pytest-xdist are processes: the pid tells their labs apart
        name=f"{topology.name}-test-{os.getpid()}-{next(_numbers)}",
        engine=request.config.getoption("--lab-engine"),
    )
    with _or_skip():
        # Only a lab that does not depend on this process can outlive it.
        live.start(attached=not keep)
    kept.labs.append(live)
    try:
        yield live
    finally:
        if keep and kept.failed:
            # lets go of the lab and leaves it up
            live.close()
        else:
            live.stop()


Record = Callable[..., AbstractContextManager["Recording"]]


@pytest.fixture
def trace(request: pytest.FixtureRequest, lab: Lab) -> Record:
    """Record packets of the test's lab: ``with trace() as seen: ...``, then ask ``seen``.

    Takes what ``Lab.trace`` takes. If the test fails, the recordings stand in its report, and
    their pages and captures in the artefacts folder.
    """
    kept = request.node.stash.setdefault(_KEPT, _Kept())

    @contextmanager
    def record(**options: Any) -> Iterator[Recording]:  # noqa: ANN401 (those of Lab.trace)
        with lab.trace(**options) as recording:
            # before the block runs: a test that fails inside it still leaves what was seen
            kept.recordings.append(recording)
            yield recording

    return record


Golden = Callable[..., None]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare a trace with a stored one: ``golden(trace)``, or ``golden(trace, "name")``.

    The files are in ``golden/`` beside the test; ``--update-golden`` writes them anew. Times,
    addresses and numbers are not compared.
    """
    folder = request.path.parent / "golden"
    update = bool(request.config.getoption("--update-golden"))

    def compare(trace: Trace, name: str = "") -> None:
        if update:
            folder.mkdir(exist_ok=True)
        trace.matches(folder / f"{name or request.node.name}.txt", update=update)

    return compare


@pytest.fixture
def datapath(request: pytest.FixtureRequest) -> Iterator[Datapath]:
    """The datapath's programs, loaded for runs on single packets; no interface is needed.

    Constants are those of the ``datapath`` marker, ``@pytest.mark.datapath(enable_policy=True)``.
    """
    from lab.datapath.testrun import Datapath

    marker = request.node.get_closest_marker("datapath")
    with ExitStack() as stack:
        with _or_skip():
            _require_root()
            loaded = stack.enter_context(Datapath(**(marker.kwargs if marker else {})))
        yield loaded


Load = Callable[..., "Loaded"]


@pytest.fixture
def bpf_object(request: pytest.FixtureRequest) -> Iterator[Load]:
    """Load a BPF program of one's own: ``bpf_object("mine.c").programs["drop_all"].test_run(p)``.

    A ``.c`` file is compiled first, with the datapath's headers and, of its flags, all but those
    that make warnings errors; a relative path starts at the test's folder. Constants (``const
    volatile``) are given as ``config={"name": value}``.
    """
    from lab.datapath.build import FOREIGN_FLAGS, SOURCES, build
    from lab.datapath.objects import program_type
    from lab.kernel.bpf import load_object

    with ExitStack() as stack:

        def load(path: Path | str, config: Mapping[str, ConfigValue] | None = None) -> Loaded:
            with _or_skip():
                _require_root()
                source = request.path.parent / path
                if source.suffix == ".c":
                    source = build([source], root=SOURCES, flags=FOREIGN_FLAGS)[0]
            loaded = load_object(source, default_type=program_type(source), config=config)
            stack.callback(loaded.close)
            return loaded

        yield load


def _require_root() -> None:
    if os.geteuid() != 0:
        raise PrerequisiteError("loading BPF programs needs root", hint="run pytest with sudo")


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


def assert_same_way(left: Trace, right: Trace) -> None:
    """Require that two packets met the same hooks with the same outcome, whatever the times.

    Raises:
        AssertionError: they did not; the message is the comparison, line by line.
    """
    from lab.report.diff import diff, diff_text, differences

    if differences(diff(left, right)):
        pytest.fail("the packets went different ways:\n" + diff_text(left, right).plain)
