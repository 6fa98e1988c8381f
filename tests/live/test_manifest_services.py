"""Services of manifests: load balancer with source ranges, affinity, local traffic, by hand."""

import pytest

from lab.k8s import live
from lab.k8s.listing import find_kind, listing
from lab.k8s.read import read_text
from lab.k8s.state import load

pytestmark = pytest.mark.live

TEXT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: c, image: busybox}]}
"""
EVERYBODY = {b"web-1", b"web-2", b"web-3"}


def service(name, spec):
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: http}}], {spec}}}\n"
    )


SERVICES = "".join(
    service(name, spec)
    for name, spec in {
        "near": "type: LoadBalancer, loadBalancerSourceRanges: [203.0.113.0/24]",
        "far": "type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.0/24]",
        "sticky": "sessionAffinity: ClientIP",
        "local": "type: NodePort, externalTrafficPolicy: Local",
    }.items()
)
MIXED = """\
---
apiVersion: v1
kind: Service
metadata: {name: mixed}
spec:
  type: NodePort
  selector: {app: web}
  ports:
    - {name: given, port: 81, targetPort: http, nodePort: 31000}
    - {name: chosen, port: 82, targetPort: http}
"""
BY_HAND = """\
---
apiVersion: v1
kind: Service
metadata: {name: byhand}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: byhand-1, labels: {kubernetes.io/service-name: byhand}}
addressType: IPv4
endpoints: [{addresses: [10.0.1.10]}]
ports: [{port: 80, protocol: TCP}]
"""


@pytest.fixture(scope="module")
def lab():
    made, _ = live.up(
        read_text(TEXT + SERVICES + MIXED + BY_HAND), name="services-test", attached=True
    )
    yield made
    made.stop()


def names(place, address, port=80, times=15):
    request = b"GET /hostname HTTP/1.1\r\n\r\n"
    return {
        place.connect(address, port, payload=request, timeout_s=0.5).reply.rpartition(b"\n")[2]
        for _ in range(times)
    }


def front(lab, name, kind):
    return next(item for item in lab.service(name).frontends if item.kind == kind)


def test_a_client_in_the_source_ranges_is_served_by_all_pods(lab):
    assert names(lab.world, front(lab, "near", "LoadBalancer").address, times=30) == EVERYBODY


def test_a_client_outside_the_source_ranges_is_not(lab):
    assert names(lab.world, front(lab, "far", "LoadBalancer").address, times=2) == {b""}


def test_affinity_keeps_the_backend(lab):
    assert len(names(lab.pod("client"), lab.service("sticky").address)) == 1


def test_local_traffic_stays_on_the_node_it_reached(lab):
    port = front(lab, "local", "NodePort").port
    assert names(lab.world, lab.node("alpha").address, port) == {b"web-1", b"web-3"}
    assert names(lab.world, lab.node("beta").address, port) == {b"web-2"}


def test_endpoints_given_by_hand_are_served(lab):
    assert names(lab.pod("client"), lab.service("byhand").address, times=3) == {b"web-1"}


def test_get_shows_node_ports_that_were_given_and_chosen(lab):
    services = listing(lab, load(lab), find_kind("services"), names=["mixed"])
    ports = dict(zip(services.headings, services.rows[0], strict=True))["ports"]
    chosen = {item.port for item in lab.service("mixed").frontends if item.kind == "NodePort"}
    (other,) = chosen - {31000}
    assert ports == f"81:31000/TCP,82/TCP ({other})"
