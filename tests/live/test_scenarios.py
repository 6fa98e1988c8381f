"""Every scenario holds, on every engine."""

import pytest

from lab.errors import InputError, TopologyError
from lab.scenarios import load_scenarios, load_topology
from lab.wire import TwoHosts

SCENARIOS = load_scenarios(["scenarios"])
# two hosts on a wire are the same whatever builds a topology
RUNS = [
    pytest.param(item, engine, id=f"{item.name}-{engine}")
    for item in SCENARIOS
    for engine in ("netns", "mininet")
    if engine == "netns" or not isinstance(item.topology, TwoHosts)
]


@pytest.mark.live
@pytest.mark.parametrize(("scenario", "engine"), RUNS)
def test_scenario_holds(scenario, engine):
    report = scenario.run(engine=engine)
    if report.unsupported:
        pytest.skip(report.error)
    assert not report.error
    assert [check for check in report.checks if not check.holds] == []
    assert report.checks, "a scenario that checks nothing proves nothing"


BAD_FILES = {
    "a file that is not there": (None, InputError, "no such file"),
    "a file that raises": ("1 / 0", InputError, "ZeroDivisionError"),
    "a file that is no Python": ("topology = (", InputError, "SyntaxError"),
    "a file without a topology": ("x = 1", TopologyError, "defines no"),
    "a topology that cannot be built": (
        "from lab import Topology\ntopology = Topology(name='x', nodes=())",
        TopologyError,
        "no node",
    ),
}


@pytest.mark.parametrize(("text", "kind", "cause"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_topology_file_is_refused(tmp_path, text, kind, cause):
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(kind, match=cause) as caught:
        load_topology(path)
    assert "bad.py" in caught.value.message
    assert caught.value.hint
