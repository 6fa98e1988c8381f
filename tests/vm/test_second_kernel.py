"""Debian's kernel: what only it can do, and that it takes every program of the datapath."""

from pathlib import Path

import pytest

from lab import Attach, Lab, Probe
from lab.datapath import build, objects
from lab.errors import LabError
from lab.kernel import probe
from lab.kernel.bpf import load_object
from lab.trace import Evidence, Step
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


ENTRY = r"""
#include <linux/skbuff.h>

struct arrival { u64 ns; u64 skb; u32 length; };
BPF_PERF_OUTPUT(routed_in);

KFUNC_PROBE(ip_route_input_noref, struct sk_buff *skb)
{
    struct arrival event = { .ns = bpf_ktime_get_ns(), .skb = (u64)skb, .length = skb->len };
    routed_in.perf_submit(ctx, &event, sizeof(event));
    return 0;
}
"""


def test_a_kprobe_and_an_fentry_of_ones_own_stand_in_the_packets_ladder() -> None:
    entry = Probe(ENTRY, (Attach("fentry", "ip_route_input_noref"),))
    with Lab(topology) as lab, lab.probe(PROBE) as own, lab.probe(entry) as second:
        trace = lab.follow("client", "server").packets[0]
    assert not second.note
    routed = [hop for hop in trace.at(namespace="server") if hop.hook == "routed_in"]
    assert [(hop.step, hop.evidence) for hop in routed] == [(Step.IP_ROUTING, Evidence.PROBE)]
    assert dict(routed[0].values)["length"] == 20 + 8 + 5 + 16  # IP, UDP, hello, the lab's cookie
    seen = [hop for hop in trace.hops if hop.hook == "socket_memory"]
    assert [(hop.namespace, hop.evidence) for hop in seen] == [("server", Evidence.PROBE)]
    values = dict(seen[0].values)
    assert values["limit_bytes"] == 212992  # net.core.rmem_default: the structure is this kernel's
    assert values["waiting_bytes"] == 0
    assert not own.note
