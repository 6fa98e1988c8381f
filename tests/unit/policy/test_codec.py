"""Policies survive the way through JSON."""

import json

import pytest
from hypothesis import given, settings

from lab.errors import InputError
from lab.k8s.objects import Objects
from lab.k8s.read import read_text
from lab.policy.codec import decode, encode
from lab.policy.objects import NetworkPolicy, Policy, Port, Selector
from tests import policy_strategies as random_
from tests.policy_cases import CLUSTER, E2E


@settings(max_examples=100, deadline=None)
@given(random_.policies)
def test_policies_come_back_equal(policies):
    for policy in policies:
        assert decode(Policy, json.loads(json.dumps(encode(policy)))) == policy


def test_manifests_come_back_equal():
    objects = read_text(CLUSTER + E2E["policy by port"].manifests)
    assert decode(Objects, json.loads(json.dumps(encode(objects)))) == objects


@pytest.mark.parametrize(
    "data",
    [{"is": "Selector"}, {"is": "Port", "port": 1.5}, [], None],
    ids=["another class", "another type", "a list", "nothing"],
)
def test_data_of_another_shape_is_refused(data):
    with pytest.raises(InputError):
        decode(Port, data)


def test_missing_fields_take_their_default():
    found = decode(NetworkPolicy, {"is": "NetworkPolicy", "name": "p"})
    assert found.pod_selector == Selector()
