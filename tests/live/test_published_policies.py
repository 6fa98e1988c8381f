"""The published NetworkPolicy cases, measured with real probes on the attached datapath."""

import pytest

from lab.k8s import live
from lab.k8s.matrix import ALLOW, PortNumber, expected, measured
from lab.k8s.objects import PolicyObject, key_of
from lab.k8s.read import read_text
from lab.k8s.state import load
from tests.policy_cases import CLUSTER, E2E, RECIPES

pytestmark = [pytest.mark.live, pytest.mark.slow]

CASES = {f"e2e: {name}": case for name, case in E2E.items()}
CASES |= {f"recipe: {name}": case for name, case in RECIPES.items()}


@pytest.fixture(scope="module")
def lab():
    made, _ = live.up(read_text(CLUSTER), name="published-test", attached=True)
    yield made
    made.stop()


@pytest.fixture
def applied(lab):
    def apply(manifests):
        live.apply(lab, read_text(manifests))
        return lab

    yield apply
    policies = load(lab).objects.of(PolicyObject)
    live.delete(lab, [key_of(policy) for policy in policies])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_truth_table(applied, case):
    lab = applied(case.manifests)
    world = load(lab).world(live.settled(lab))
    names = [pod.title for pod in world.cluster.workloads]
    ports = [PortNumber(protocol.lower(), number) for protocol, number in case.ports]
    asked = expected(world.cluster, world.objects.policies, ports, names=names)
    found = measured(asked, world.cluster, {name: lab.place(name) for name in names})
    wrong = [
        (cell.source, cell.destination, str(cell.port), cell.measured)
        for cell in found.cells
        if (cell.measured == ALLOW)
        != case.allows(cell.port.protocol.upper(), cell.port.number, cell.source, cell.destination)
    ]
    assert wrong == []
