"""What was read can be written and read again without a difference."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings

from lab.errors import InputError
from lab.k8s.read import read_files, read_text
from lab.k8s.write import manifest, policies_yaml, to_yaml
from tests import policy_strategies as random_
from tests.policy_cases import CLUSTER, E2E

ROOT = Path(__file__).resolve().parents[3]


def bodies(objects):
    return [replace(item, meta=replace(item.meta, source="")) for item in objects.items]


@pytest.mark.parametrize(
    "objects",
    [
        read_files([ROOT / "topologies/shop"]),
        read_text(CLUSTER + E2E["a range of ports"].manifests),
    ],
    ids=["the shop", "pods and a policy"],
)
def test_objects_survive(objects):
    again = read_text(to_yaml(manifest(item) for item in objects.items))
    assert bodies(again) == bodies(objects)


@settings(max_examples=60, deadline=None)
@given(random_.network_policies)
def test_network_policies_survive(policy):
    text = policies_yaml([policy])
    try:
        again = read_text(text).policies
    except InputError as error:
        # random ones may be impossible, which only the reader refuses
        assert re.search("no labels can meet|is in all of|is not a part of", str(error))
        assume(False)
    assert again == (policy,)
