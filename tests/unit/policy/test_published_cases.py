"""The published cases have their truth tables in the oracle and in the compiled entries."""

from itertools import product

import pytest

from lab.k8s.place import place
from lab.k8s.read import read_text
from lab.policy.compiler import Compiler
from lab.policy.objects import Direction
from lab.policy.oracle import Packet, expect
from tests.policy_cases import CLUSTER, E2E, RECIPES, np

CASES = {f"e2e: {name}": case for name, case in E2E.items()}
CASES |= {f"recipe: {name}": case for name, case in RECIPES.items()}
WORLD = "203.0.113.10"


@pytest.fixture(scope="module")
def cluster():
    return place(read_text(CLUSTER), name="t").cluster


def differences(case, cluster, decide):
    return [
        f"{protocol} {port}: {source.title} -> {destination.title}"
        for protocol, port in case.ports
        for source, destination in product(cluster.workloads, repeat=2)
        if decide(source, destination, protocol, port)
        != case.allows(protocol, port, source.title, destination.title)
    ]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_oracle(case, cluster):
    policies = read_text(case.manifests).policies

    def decide(source, destination, protocol, port):
        return expect(cluster, policies, source, destination, Packet(protocol, port)).allowed

    assert not differences(case, cluster, decide)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_compiled_entries(case, cluster):
    compiled = Compiler().compile(cluster, read_text(case.manifests).policies)
    numbers = {"TCP": 6, "UDP": 17, "SCTP": 132}

    def decide(source, destination, protocol, port):
        if source.title == destination.title:
            return True
        return not any(
            compiled.endpoints[own.title]
            .look_up(compiled.identity_of[other.title], direction, numbers[protocol], port)
            .reason
            for direction, own, other in (
                (Direction.EGRESS, source, destination),
                (Direction.INGRESS, destination, source),
            )
        )

    assert not differences(case, cluster, decide)


OUTSIDE = {
    "nothing selects the pod": ("", True, True),
    "default deny": (np("{podSelector: {}, policyTypes: [Ingress, Egress]}"), False, False),
    "external traffic allowed": (np("{podSelector: {}, ingress: [{}]}"), True, True),
    "all namespaces are not the world": (
        np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"),
        False,
        True,
    ),
    "external egress denied": (
        np("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}"),
        True,
        False,
    ),
    "a block that holds the client": (
        np("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}"),
        True,
        True,
    ),
    "a block that leaves the client out": (
        np(
            "{podSelector: {}, ingress: [{from: [{ipBlock: "
            "{cidr: 203.0.0.0/16, except: [203.0.113.0/28]}}]}]}"
        ),
        False,
        True,
    ),
    "every address": (
        np(
            "{podSelector: {}, policyTypes: [Egress], "
            "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}"
        ),
        True,
        True,
    ),
}


@pytest.mark.parametrize(("manifest", "into", "out"), OUTSIDE.values(), ids=OUTSIDE.keys())
def test_clients_outside_the_cluster(manifest, into, out, cluster):
    policies = read_text(manifest).policies if manifest else ()
    pod = cluster.workloads[0]
    packet = Packet("TCP", 80)
    assert expect(cluster, policies, WORLD, pod, packet).allowed is into
    assert expect(cluster, policies, pod, WORLD, packet).allowed is out
