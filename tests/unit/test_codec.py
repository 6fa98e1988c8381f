"""Data survives the way through JSON, and only data that it was made of."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings

from lab.codec import decode, encode
from lab.errors import InputError
from lab.k8s.objects import Objects
from lab.k8s.read import read_text
from lab.policy.objects import NetworkPolicy, Operator, Policy, Port, Requirement, Selector
from tests import policy_strategies as random_
from tests.policy_cases import CLUSTER, E2E

EXISTS = Requirement("app", Operator.EXISTS)
ENCODED = {"is": "Requirement", "key": "app", "operator": "Exists", "values": []}


@settings(max_examples=100, deadline=None)
@given(random_.policies)
def test_policies_come_back_equal(policies):
    for policy in policies:
        assert decode(Policy, json.loads(json.dumps(encode(policy)))) == policy


def test_manifests_come_back_equal():
    objects = read_text(CLUSTER + E2E["policy by port"].manifests)
    assert decode(Objects, json.loads(json.dumps(encode(objects)))) == objects


VALUES = {
    "a whole number of seconds": (float, 30.0, 30),
    "nothing at all": (type(None), None, None),
    "labels": (Mapping[str, str], {"app": "web"}, {"app": "web"}),
    "a pair": (tuple[str, int], ("a", 1), ["a", 1]),
    "a set of descriptions": (frozenset[Requirement], frozenset({EXISTS}), [ENCODED]),
    "one of several kinds": (int | Requirement | None, EXISTS, ENCODED),
}


@pytest.mark.parametrize(("kind", "value", "data"), VALUES.values(), ids=VALUES.keys())
def test_values_as_json_and_back(kind, value, data):
    found = decode(kind, data)
    assert (encode(value), found, type(found)) == (data, value, type(value))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Port, {"is": "Selector"}),
        (Port, {"is": "Port", "port": 1.5}),
        (Port, []),
        (Port, None),
        (int, True),
        (tuple[str, ...], "text"),
        (tuple[str, int], ["a"]),
        (Mapping[str, str], ["a"]),
        (Mapping[str, str], {"a": 1}),
    ],
    ids=[
        "another class",
        "another type",
        "a list",
        "nothing",
        "a truth value for a number",
        "text for a list of texts",
        "half a pair",
        "a list for a mapping",
        "a number for a label",
    ],
)
def test_data_of_another_shape_is_refused(kind, data):
    with pytest.raises(InputError):
        decode(kind, data)


@pytest.mark.parametrize(
    "value", [object(), {1: "a"}, b"bytes"], ids=["an object", "a number as key", "bytes"]
)
def test_what_json_cannot_carry_is_refused(value):
    with pytest.raises(InputError, match="nothing that a message can carry"):
        encode((value,))


def test_missing_fields_take_their_default():
    found = decode(NetworkPolicy, {"is": "NetworkPolicy", "name": "p"})
    assert found.pod_selector == Selector()
