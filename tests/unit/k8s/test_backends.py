"""Whose addresses a service leads to: selected pods, or those that somebody wrote down."""

import pytest

from lab.k8s.backends import services_of
from lab.k8s.place import place
from lab.k8s.read import read_text

TEXT = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, image: nginx}]}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {SELECTOR ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-1, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
endpoints: [{addresses: [203.0.113.10]}]
ports: [{port: 8080, protocol: TCP}]
"""

CASES = {
    "a selector: the pods it selects": ("selector: {app: web},", [("default/web", "", 80)]),
    "no selector: what is written down": ("", [("", "203.0.113.10", 8080)]),
    "an empty selector, which is none": ("selector: {},", [("", "203.0.113.10", 8080)]),
}


@pytest.mark.parametrize(("selector", "expected"), CASES.values(), ids=CASES.keys())
def test_backends_of_a_service(selector, expected):
    world = place(read_text(TEXT.replace("SELECTOR", selector)), name="t")
    (service,) = services_of(world, frozenset({"default/web"}))
    assert [(item.pod, item.address, item.port) for item in service.backends] == expected


CONDITIONS = {
    "nothing stated": ("", (True, False)),
    "not ready": ("ready: false", (False, False)),
    "ending, and still serving": ("ready: false, serving: true, terminating: true", (True, True)),
    "ending, serving unstated": ("ready: false, terminating: true", (True, True)),
    "ending, and no longer serving": ("serving: false, terminating: true", (False, True)),
}


@pytest.mark.parametrize(("written", "expected"), CONDITIONS.values(), ids=CONDITIONS.keys())
def test_conditions_of_an_endpoint(written, expected):
    stated = f"[203.0.113.10], conditions: {{{written}}}"
    text = TEXT.replace("SELECTOR", "").replace("[203.0.113.10]", stated)
    (service,) = services_of(place(read_text(text), name="t"), frozenset())
    assert [(item.ready, item.terminating) for item in service.backends] == [expected]
