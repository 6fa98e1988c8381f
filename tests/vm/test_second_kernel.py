"""Debian's kernel: what only it can do, and that it takes every program of the datapath."""

from pathlib import Path

import pytest

from lab.datapath import build, objects
from lab.errors import LabError
from lab.kernel import probe
from lab.kernel.bpf import load_object
from lab.scenarios import load_scenarios

ROOT = Path(__file__).resolve().parents[2]
ONLY_HERE = ("fentry", "kprobe", "lsm", "wireguard", "dummy", "vlan", "netem", "fq", "esp")


def test_it_can_what_the_readme_sends_people_here_for() -> None:
    answers = {name: str(probe.ability(name).answer) for name in ONLY_HERE}
    assert answers == dict.fromkeys(ONLY_HERE, "yes")


def test_labs_can_run_here() -> None:
    assert not probe.missing_requirements()


@pytest.mark.parametrize("name", ["bpf_lxc", "bpf_host", "bpf_overlay", "bpf_xdp"])
def test_verifier_takes_every_program_of_the_object(name: str) -> None:
    path = build.build_objects([name])[name]
    try:
        with load_object(path, default_type=objects.program_type(path)) as loaded:
            assert loaded.programs
    except LabError as error:
        pytest.fail(error.message, pytrace=False)


def test_a_packet_crosses_two_nodes_here_too() -> None:
    (scenario,) = load_scenarios([ROOT / "scenarios" / "pod_to_pod_vxlan.py"])
    report = scenario.run()
    assert report.checks and report.passed, report
