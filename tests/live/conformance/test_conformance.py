"""Cilium's connectivity tests by name, on one lab; the others with the reason why not."""

import pytest

from lab.k8s.conformance.cases import Case
from lab.k8s.conformance.left_out import NOT_APPLICABLE
from lab.k8s.conformance.runner import PASSED, _lab, _Suite, case_names, run

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture(scope="module")
def results():
    return {result.name: result for result in run(lab_name="conformance-test")}


@pytest.mark.parametrize("name", case_names())
def test_case(results, name):
    assert results[name].outcome == PASSED, results[name].details


@pytest.mark.parametrize("name", NOT_APPLICABLE)
def test_left_out_with_a_reason(results, name):
    assert results[name].details[0]


WRONG = {
    "a drop expected where none is": ("client > echo-same-node 8080 deny 133", "open"),
    "an answer expected where none is": ("client > world 80 allow", "silent"),
    "another reason expected": ("client > world 80 deny 181", "dropped with [133]"),
}


def test_the_suite_can_fail():
    policies = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: cilium-test}
spec:
  endpointSelector: {matchLabels: {name: client}}
  egress: [{toEntities: [cluster]}]
"""
    with _lab("conformance-wrong", "netns") as lab:
        problems = _Suite(lab).run(Case("wrong", policies, tuple(f for f, _ in WRONG.values())))
    assert problems == [f"{flow}: {what}" for flow, what in WRONG.values()]
