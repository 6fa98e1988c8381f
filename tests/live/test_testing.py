"""The pytest plugin as an outsider uses it: a small project of its own, run by pytest."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from lab.kernel import process
from lab.kernel.probe import Answer, abilities
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


DATAPATH = """
import pytest

@pytest.mark.datapath(endpoint_id=300)
def test_a_cut_packet_is_dropped(datapath):
    packet = bytes(12) + b"\\x08\\x00" + bytes(20)
    assert datapath.run("from-container", packet).verdict.value == "drop"

def test_my_own_program(bpf_object):
    answer = bpf_object("mine.c").programs["drop_all"].test_run(bytes(64))
    assert answer.return_code == 1
"""
MINE = """\
// SPDX-License-Identifier: GPL-2.0
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "answer.h"
SEC("xdp") int drop_all(struct xdp_md *ctx) { return ANSWER; }
char _license[] SEC("license") = "GPL";
"""


def test_programs_are_run_on_single_packets_ours_and_the_users_own(run, tmp_path):
    (tmp_path / "mine.c").write_text(MINE)
    (tmp_path / "answer.h").write_text("#define ANSWER XDP_DROP\n")
    done = run(DATAPATH)
    assert "2 passed" in done.stdout, done.stdout


def test_a_program_of_the_users_is_built_anew_when_its_header_changes(run, tmp_path):
    (tmp_path / "mine.c").write_text(MINE)
    for answer, said in (("XDP_DROP", "1 passed"), ("XDP_PASS", "1 failed")):
        (tmp_path / "answer.h").write_text(f"#define ANSWER {answer}\n")
        done = run(DATAPATH, "-k", "my_own_program")
        assert said in done.stdout, done.stdout


NEEDS = """
import pytest
@pytest.mark.needs("{}")
def test_x(): pass
"""


def test_a_kernel_without_an_ability_skips_with_the_doctors_reason(run):
    lacking = next(one for one in abilities() if one.answer is Answer.NO)
    done = run(NEEDS.format(lacking.name), "-rs")
    assert "1 skipped" in done.stdout
    assert lacking.reason in done.stdout


def test_an_ability_that_is_there_skips_nothing(run):
    assert "1 passed" in run(NEEDS.format("root")).stdout


def test_a_misspelt_ability_is_an_error_not_a_skip(run):
    done = run(NEEDS.format("xpd"))
    assert (done.returncode != 0, "no ability is called" in done.stdout + done.stderr) == (
        True,
    ) * 2


RECORDED = """
def test_server_is_reached(lab, trace):
    with trace() as seen:
        lab.pod("client").send_udp(lab.pod("server"), 5000, timeout_s=0.2)
    assert seen.of("udp").delivered{}
"""


def test_a_failing_tests_recording_is_in_its_report_and_in_files(run, tmp_path):
    done = run(RECORDED.format(""), "--lab-artefacts", "kept")
    assert "dev_queue" in done.stdout
    files = sorted(path.name for path in (tmp_path / "kept").rglob("*udp*"))
    assert files == ["01-udp.html", "01-udp.json", "01-udp.pcapng"]
    assert str(tmp_path / "kept") in done.stdout


def test_a_passing_test_leaves_no_files(run, tmp_path):
    done = run(RECORDED.format(" is False"))
    assert "1 passed" in done.stdout, done.stdout
    assert list(tmp_path.rglob("*.html")) == []


SHARED = """
import pytest
from lab import Node, Pod, Topology
topology = Topology(name="shared", nodes=(Node("n1"),), pods=(Pod("web", "n1"), Pod("db", "n1")))
seen = []

@pytest.mark.parametrize("n", range(2))
def test_same(module_lab, n):
    seen.append(module_lab.name)
    assert module_lab.pod("web").ping(module_lab.pod("db")).ok
    assert len(set(seen)) == 1

def test_end(module_lab):
    assert {}
"""


def test_tests_of_a_module_may_share_one_lab(run):
    assert "3 passed" in run(SHARED.format("seen")).stdout


def test_a_shared_lab_is_kept_after_a_failure_too(run):
    done = run(SHARED.format("not seen"), "--keep-on-fail")
    line = next(line for line in done.stdout.splitlines() if "lab shell" in line)
    Lab.attach(line.split("lab shell ")[1].split("/")[0]).stop()


GOLDEN = """
def test_way(lab, golden):
    golden(lab.follow("client", "{}").packets[0], "way")
"""


def test_a_golden_trace_is_written_compared_and_differs_for_another_way(run, tmp_path):
    assert "golden trace" in run(GOLDEN.format("server")).stdout
    assert "1 passed" in run(GOLDEN.format("server"), "--update-golden").stdout
    assert "from-container" in (tmp_path / "golden" / "way.txt").read_text()
    assert "1 failed" in run(GOLDEN.format("alpha")).stdout


@pytest.fixture
def open_folder():
    # pytest's own folders are closed to other users
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_without_root_a_test_is_skipped_with_what_to_do(open_folder):
    (open_folder / "test_pair.py").write_text(
        "def test_lab(lab): assert lab\n"
        "def test_datapath(datapath): assert datapath\n"
        "def test_nothing(lab_topology): assert lab_topology.name == 'pair'\n"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable,
               "-m", "pytest", "-q", "-rs", "-p", "lab.testing", "-p", "no:cacheprovider",
               f"--rootdir={open_folder}", str(open_folder / "test_pair.py")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    done = process.run(command, cwd=Path("/"), env=environment, check=False)
    if "Permission denied" in done.stderr:
        pytest.skip("this Python cannot be run by another user")
    assert "1 passed, 2 skipped" in done.stdout, done.stdout + done.stderr
    assert "needs root" in done.stdout
