"""The attached policy program decides as the specification says, for random clusters."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.k8s.write import policies_yaml, to_yaml
from lab.layouts.core import PolicyAbsent
from lab.policy.compiler import Compiler
from lab.policy.entries import EntryKey, pack_value
from lab.policy.objects import Direction, Semantics
from lab.policy.oracle import Packet, expect
from tests import policy_strategies as random_
from tests.policy_program import PolicyProgram, verdict

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: runs programs in the kernel"),
]


@pytest.fixture(scope="module")
def program():
    made = PolicyProgram()
    yield made
    made.close()


@st.composite
def cases(draw):
    cluster = draw(random_.clusters())
    pods = [pod.address for pod in cluster.workloads]
    others = [machine.addresses[0] for machine in cluster.machines]
    anybody = st.sampled_from([*pods, *pods, *others, *random_.OUTSIDE])
    flows = st.lists(st.tuples(anybody, anybody, random_.packets), min_size=8, max_size=8)
    return cluster, draw(random_.policies), draw(st.sampled_from(Semantics)), draw(flows)


def story(program, cluster, policies, headline):
    """A counterexample as manifests, and what the program said of the last packet."""
    pods = to_yaml(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod.name,
                "namespace": pod.namespace,
                "labels": dict(pod.labels),
            },
            "status": {"podIP": pod.address},
        }
        for pod in cluster.workloads
    )
    told = "\n".join(map(str, program.last.events)) if program.last else ""
    return "\n---\n".join([headline, pods, policies_yaml(policies), told])


@settings(
    max_examples=280, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases())
def test_two_thousand_random_packets(program, case):
    cluster, policies, semantics, flows = case
    compiled = Compiler(semantics).compile(cluster, policies)
    for source, destination, packet in flows:
        expected = expect(cluster, policies, source, destination, packet, semantics)
        got = verdict(program, compiled, cluster, source, destination, packet)
        assert got == (expected.reason, expected.direction), story(
            program, cluster, policies, f"{source} -> {destination} {packet}: {expected}, not {got}"
        )


ALLOW = EntryKey(256, False, 6, 80, 12)
DENY = EntryKey(257, False, 6, 64, 10)
PROBES = [
    (identity, Packet("TCP", port))
    for identity in (256, 257, 300)
    for port in (63, 64, 79, 80, 87, 88, 95, 96, 127)
]


def truth(program, raw_key, raw_value):
    """Reasons for every probe with the two entries, the first one given in bytes."""
    program.play({DENY: True})
    program.tell_absent(PolicyAbsent())
    program.policy.update(raw_key, raw_value)
    return [
        program.send(Direction.INGRESS, "10.0.1.11", identity, packet)
        for identity, packet in PROBES
    ]


@pytest.mark.parametrize("bit", range(64))
def test_one_flipped_bit_of_a_key_changes_a_verdict(program, bit):
    key, value = ALLOW.pack(), pack_value(False, ALLOW)
    good = truth(program, key, value)
    flipped = bytearray(key)
    flipped[bit // 8] ^= 1 << bit % 8
    assert truth(program, bytes(flipped), value) != good


def test_the_flipped_deny_bit_changes_a_verdict(program):
    key = ALLOW.pack()
    good = truth(program, key, pack_value(False, ALLOW))
    assert truth(program, key, pack_value(True, ALLOW)) != good


def test_half_as_large_a_block_of_ports_changes_a_verdict(program):
    value = pack_value(False, ALLOW)
    good = truth(program, ALLOW.pack(), value)
    smaller = EntryKey(256, False, 6, 80, 13)
    assert truth(program, smaller.pack(), value) != good
