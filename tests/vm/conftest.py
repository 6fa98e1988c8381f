"""Tests of this folder run on the second kernel: one boot for all that were selected.

On the host each of them reports what the same test reported inside. Inside (LAB_IN_VM) they are
ordinary tests that append their reports to a file.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from lab.errors import PrerequisiteError
from lab.kernel import process, vm

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
FOLDER = ROOT / "artefacts" / "vm"
REPORTS = "LAB_VM_REPORTS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.vm)


def why_not() -> str:
    """Return why no second kernel can be booted, or an empty string."""
    if os.environ.get("LAB_TEST_VM") == "none":
        return "left out by --vm none"
    if os.geteuid():
        return "needs root"
    try:
        vm.find_guest()
    except PrerequisiteError as error:
        return f"{error.message}: {error.hint}"
    return ""


def run_inside(session: pytest.Session, names: list[str]) -> dict[str, list[pytest.TestReport]]:
    """Boot once, run the named tests there, return their reports by name."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    reports, output = FOLDER / f"reports-{os.getpid()}.jsonl", FOLDER / "output.txt"
    reports.unlink(missing_ok=True)
    inner = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names]
    done = process.run(
        [sys.executable, "-P", "-m", "lab", "vm", "--", "env", f"{REPORTS}={reports}", *inner],
        timeout_s=1800,
        check=False,
        cwd=ROOT,
    )
    output.write_text(done.stdout + done.stderr)
    found: dict[str, list[pytest.TestReport]] = {}
    for line in reports.read_text().splitlines() if reports.exists() else ():
        hook = session.config.hook
        report = hook.pytest_report_from_serializable(config=session.config, data=json.loads(line))
        found.setdefault(report.nodeid, []).append(report)
    reports.unlink(missing_ok=True)
    return found


def lost(item: pytest.Item) -> pytest.TestReport:
    """Return the failure of a test that never reported from inside."""
    output = FOLDER / "output.txt"
    tail = "\n".join(output.read_text().splitlines()[-30:])
    return pytest.TestReport(
        item.nodeid,
        item.location,
        {},
        "failed",
        f"no report came from the second kernel; the end of its output:\n{tail}",
        "call",
    )


STARTED = pytest.StashKey[dict[str, list[pytest.TestReport]]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    # This hook is asked for every test of the session, not only for those of this folder.
    if vm.inside() or HERE not in item.path.parents:
        return None
    if reason := why_not():
        item.add_marker(pytest.mark.skip(reason=reason))
        return None
    session = item.session
    if STARTED not in session.stash:
        names = [other.nodeid for other in session.items if HERE in other.path.parents]
        session.stash[STARTED] = run_inside(session, names)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = session.stash[STARTED].get(item.nodeid, [])
    if not any(report.when == "teardown" for report in reports):
        reports = [*reports, lost(item)]  # the machine went down in the middle of it
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Inside: hand the report to the host."""
    target = os.environ.get(REPORTS)
    if target and vm.inside():
        data = CONFIG[0].hook.pytest_report_to_serializable(config=CONFIG[0], report=report)
        with Path(target).open("a") as handle:
            handle.write(json.dumps(data) + "\n")


CONFIG: list[pytest.Config] = []


def pytest_configure(config: pytest.Config) -> None:
    CONFIG.append(config)
