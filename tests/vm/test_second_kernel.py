"""Debian's kernel: what only it can do, and that it takes every program of the datapath."""

from pathlib import Path

import pytest

from lab import Lab
from lab.datapath import build, objects
from lab.errors import LabError
from lab.kernel import probe
from lab.kernel.bpf import load_object
from lab.trace import Evidence
from topologies.two_nodes import topology

PROBE = Path(__file__).resolve().parents[2] / "docs" / "socket_queue_probe.py"
ONLY_HERE = ("fentry", "kprobe", "lsm", "wireguard", "dummy", "vlan", "netem", "fq", "esp")


def test_it_can_what_the_readme_sends_people_here_for() -> None:
    answers = {name: str(probe.ability(name).answer) for name in ONLY_HERE}
    assert answers == dict.fromkeys(ONLY_HERE, "yes")
    assert not probe.missing_requirements()  # and labs can run


OBJECTS = ["bpf_lxc", "bpf_host", "bpf_overlay", "bpf_xdp"]


def test_verifier_takes_every_program_of_every_object() -> None:
    for name, path in build.build_objects(OBJECTS).items():
        try:
            with load_object(path, default_type=objects.program_type(path)) as loaded:
                assert loaded.programs, name
        except LabError as error:
            pytest.fail(f"{name}: {error.message}", pytrace=False)


def test_a_kprobe_of_ones_own_stands_in_the_packets_ladder() -> None:
    with Lab(topology) as lab, lab.probe(PROBE) as own:
        trace = lab.follow("client", "server").packets[0]
    seen = [hop for hop in trace.hops if hop.hook == "socket_memory"]
    assert [(hop.namespace, hop.evidence) for hop in seen] == [("server", Evidence.PROBE)]
    values = dict(seen[0].values)
    assert values["limit_bytes"] == 212992  # net.core.rmem_default: the structure is this kernel's
    assert values["waiting_bytes"] == 0
    assert not own.note
