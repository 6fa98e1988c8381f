"""Random policies on a running lab: every probe ends as the specification says."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from lab.k8s import live
from lab.k8s.matrix import PortNumber, expected, measured
from lab.k8s.read import read_text
from lab.k8s.state import load
from lab.k8s.write import policies_yaml
from tests import policy_strategies as random_
from tests.policy_cases import CLUSTER

pytestmark = [pytest.mark.live, pytest.mark.slow]

PORTS = tuple(
    PortNumber(*port)
    for port in (("tcp", 80), ("tcp", 96), ("udp", 53), ("sctp", 443), ("icmp", 8))
)
MANIFESTS = CLUSTER.replace("labels: {pod: a}", "labels: {pod: a, app: a}").replace(
    "labels: {pod: b}", "labels: {pod: b, app: b, tier: a}"
)


@pytest.fixture(scope="module")
def lab():
    made, _ = live.up(read_text(MANIFESTS), name="property-test", attached=True)
    yield made
    made.stop()


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(policies=random_.policies)
def test_the_whole_truth_table_is_the_oracles(lab, policies):
    cluster = load(lab).world(live.settled(lab)).cluster
    titles = {policy.title for policy in lab.agent.policies()}
    if titles:
        lab.delete(*titles)
    lab.apply(*policies)
    asked = expected(cluster, policies, PORTS)
    places = {name: lab.place(name) for name in asked.names}
    found = measured(asked, cluster, places)
    assert found.differences == (), policies_yaml(policies)
