"""The pytest plugin as an outsider uses it: a small project of its own, run by pytest."""

import os
import sys
from pathlib import Path

import pytest

from lab.kernel import process
from lab.runtime import Lab

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]

PROJECT = """\
import pytest
from lab import Node, Pod, Topology
from lab.testing import assert_reachable
topology = Topology(name="shop", nodes=(Node("n1"),), pods=(Pod("web", "n1"), Pod("db", "n1")))

@pytest.mark.topology(topology)
def test_web_reaches_its_database(lab):
    assert_reachable(lab, "web", "db", 5432)
"""
FAILING = PROJECT + '    assert lab.pod("web").ping("10.0.1.99", timeout_s=0.1).ok\n'


@pytest.fixture
def run(tmp_path):
    def run_project(text, *options):
        (tmp_path / "test_shop.py").write_text(text)
        command = [sys.executable, "-m", "pytest", "-p", "lab.testing", "-q", *options, "."]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return process.run(command, cwd=tmp_path, env=environment, check=False)

    return run_project


def test_an_outsiders_project_passes(run):
    done = run(PROJECT)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True)


def test_an_outsiders_project_fails_where_the_network_does(run):
    done = run(FAILING)
    assert (done.returncode, "1 failed" in done.stdout) == (1, True)


def test_without_a_marker_client_and_server_are_there(run):
    done = run("def test_pair(lab):\n    assert lab.pod('client').ping(lab.pod('server')).ok\n")
    assert "1 passed" in done.stdout


def test_a_failing_tests_lab_is_kept_on_request_and_can_be_entered(run):
    done = run(FAILING, "--keep-on-fail")
    line = next(line for line in done.stdout.splitlines() if "lab shell" in line)
    name = line.split("lab shell ")[1].split("/")[0]
    kept = Lab.attach(name)
    try:
        assert kept.pod("web").ping(kept.pod("db")).ok
    finally:
        kept.stop()


def test_a_passing_tests_lab_goes_though_it_might_have_been_kept(run):
    before = [record.name for record in _labs()]
    run(PROJECT, "--keep-on-fail")
    assert [record.name for record in _labs()] == before


def _labs():
    from lab.runtime.registry import labs

    return labs()


def test_labs_of_parallel_tests_do_not_meet(run):
    text = PROJECT.replace(
        "@pytest.mark.topology", '@pytest.mark.parametrize("n", range(4))\n@pytest.mark.topology'
    )
    done = run(text.replace("(lab)", "(lab, n)"), "-n", "2")
    assert "4 passed" in done.stdout
