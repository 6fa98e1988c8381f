"""Descriptions survive the way to the agent and back, steps of the plan that to the keeper."""

import json

import pytest

from lab import Backend, Namespace, Pod, Service, ServicePort
from lab.agent.descriptions import Description, describe
from lab.codec import decode, encode
from lab.errors import InputError
from lab.plan import plan, steps
from lab.policy.objects import Direction, NetworkPolicy, NetworkRule, Peer, Port, Selector
from topologies.two_nodes import topology

DESCRIPTIONS = {
    "a service with a selector": Service(name="web", ports=(80,), selector={"app": "web"}),
    "a service with backends by hand": Service(
        name="dns",
        namespace="kube-system",
        kind="NodePort",
        ports=(ServicePort(53, 5353, "UDP", 30053, "dns"),),
        backends=("server", Backend(address="203.0.113.10", terminating=True)),
        affinity_s=10,
    ),
    "a namespace": Namespace("prod", {"team": "a"}),
    "a policy": NetworkPolicy(
        name="allow",
        pod_selector=Selector.of(app="web"),
        ingress=(NetworkRule((Peer(Selector.of(app="client")),), (Port("TCP", 80),)),),
        directions=frozenset(Direction),
    ),
}


@pytest.mark.parametrize("item", DESCRIPTIONS.values(), ids=DESCRIPTIONS.keys())
def test_description_comes_back_as_it_was(item):
    assert decode(Description, json.loads(json.dumps(encode(item)))) == item


def test_what_is_no_description_is_refused():
    with pytest.raises(InputError, match="'Gateway', .* is no Service"):
        decode(Description, {"is": "Gateway", "name": "g"})


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (DESCRIPTIONS["a namespace"], "namespace/prod"),
        (DESCRIPTIONS["a service with backends by hand"], "service/kube-system/dns"),
        (DESCRIPTIONS["a policy"], "networkpolicy/default/allow"),
        ("service/default/web", "service/default/web"),
    ],
)
def test_title_for_deleting(item, expected):
    assert describe(item) == expected


def test_a_pod_cannot_be_deleted_by_the_agent():
    with pytest.raises(InputError, match="cannot be deleted"):
        describe(Pod("client", node="alpha"))


def test_every_step_of_a_plan_survives_json():
    todo = plan(topology)
    assert [steps.from_json(json.loads(json.dumps(steps.to_json(s)))) for s in todo] == list(todo)
