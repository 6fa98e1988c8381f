"""Manifests on a real lab: pods serve, services answer, policies hold."""

import textwrap
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.k8s import live
from lab.k8s.matrix import ALLOW, DENY, PortNumber, expected, measured
from lab.k8s.pods import lab_name, ready_pods
from lab.k8s.read import read_files, read_text
from lab.k8s.state import load
from lab.policy.objects import Semantics
from lab.waiting import eventually

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
HTTP = PortNumber("tcp", 80)


def build(text, name, **arguments):
    lab, _ = live.up(read_text(textwrap.dedent(text)), name=name, attached=True, **arguments)
    return lab


def table(lab, *ports, names=()):
    """The measured truth table; fails if it differs from the oracle's."""
    state = load(lab)
    world = state.world(live.settled(lab))
    asked = expected(world.cluster, world.objects.policies, ports, state.semantics, names)
    found = measured(asked, world.cluster, {n: lab.place(lab_name(n)) for n in asked.names})
    assert found.differences == ()
    return found


def verdict(lab, source, destination, port=HTTP):
    return table(lab, port, names=(source, destination)).cell(source, destination, port).measured


@pytest.fixture(scope="module")
def shop():
    lab, _ = live.up(read_files([ROOT / "topologies/shop"]), name="shop-test", attached=True)
    yield lab
    lab.stop()


SHOP = {
    "customers reach the web": ("world", "shop/web-1", 80, ALLOW),
    "customers reach nothing else": ("world", "shop/api-1", 8080, DENY),
    "web asks the api": ("shop/web-1", "shop/api-2", 8080, ALLOW),
    "web does not ask the database": ("shop/web-1", "data/postgres-0", 5432, DENY),
    "the api asks the cache": ("shop/api-1", "shop/cache-1", 6379, ALLOW),
    "the api asks the database": ("shop/api-2", "data/postgres-1", 5432, ALLOW),
    "databases copy from each other": ("data/postgres-0", "data/postgres-1", 5432, ALLOW),
    "the database calls nobody else": ("data/postgres-0", "shop/api-1", 8080, DENY),
}


@pytest.mark.parametrize(("source", "destination", "port", "word"), SHOP.values(), ids=SHOP.keys())
def test_shop(shop, source, destination, port, word):
    assert verdict(shop, source, destination, PortNumber("tcp", port)) == word


def test_the_shops_whole_table_is_as_the_model_says(shop):
    ports = (HTTP, PortNumber("udp", 53), PortNumber("tcp", 5432), PortNumber("icmp", 8))
    assert len(table(shop, *ports).cells) == 9 * 8 * 4 + 2 * 9 * 4


def get(place, address, port, path="/hostname"):
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    return place.connect(address, port, payload=request).reply.rpartition(b"\r\n\r\n")[2]


def test_services_answer_with_names_of_their_pods(shop):
    address = shop.service("shop/api").address
    names = {get(shop.pod("shop/web-1"), address, 8080) for _ in range(20)}
    assert names == {b"api-1", b"api-2"}


def test_the_node_port_answers_outside(shop):
    assert get(shop.world, shop.node("beta").address, 30080) in (b"web-1", b"web-2")


def test_names_resolve(shop):
    name = b"\x03api\x04shop\x03svc\x07cluster\x05local\x00"
    question = bytes.fromhex("000101000001000000000000") + name + b"\x00\x01\x00\x01"
    answer = shop.pod("shop/web-2").call(
        "udp_send", address="10.96.0.10", port=53, payload=question.hex()
    )
    address = bytes.fromhex(answer["reply"])[-4:]
    assert ".".join(map(str, address)) == shop.service("shop/api").address


def test_all_pods_of_the_shop_are_ready(shop):
    assert len(ready_pods(shop, load(shop).world(live.settled(shop)))) == 9


PODS = """\
    apiVersion: v1
    kind: Namespace
    metadata: {name: x}
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: server, namespace: x, labels: {app: server}}
    spec:
      nodeName: alpha
      containers: [{name: c, image: nginx, ports: [{name: http, containerPort: 80}]}]
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: client, namespace: x, labels: {app: client}}
    spec:
      nodeName: beta
      containers: [{name: c, image: busybox}]
"""
ONLY_FRIENDS = """\
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: {name: friends, namespace: x}
    spec:
      podSelector: {matchLabels: {app: server}}
      ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]
"""


@pytest.fixture
def pair():
    lab = build(PODS, "pair-test")
    yield lab
    lab.stop()


def apply(lab, text):
    return live.apply(lab, read_text(textwrap.dedent(text)))


def test_a_policy_holds_from_apply_to_delete(pair):
    assert verdict(pair, "x/client", "x/server") == ALLOW
    outcome = apply(pair, ONLY_FRIENDS)
    assert outcome.lines == ("networkpolicy/x/friends created",)
    assert verdict(pair, "x/client", "x/server") == DENY
    live.delete(pair, [("NetworkPolicy", "x", "friends")])
    assert verdict(pair, "x/client", "x/server") == ALLOW


def test_a_changed_label_moves_the_identity(pair):
    apply(pair, ONLY_FRIENDS)
    before = {pod: i.id for i in pair.agent.identities() for pod in i.pods}
    apply(pair, PODS.replace("{app: client}", "{app: client, role: friend}"))
    after = {pod: i.id for i in pair.agent.identities() for pod in i.pods}
    assert verdict(pair, "x/client", "x/server") == ALLOW
    assert before["x/client"] != after["x/client"]
    assert before["x/server"] == after["x/server"]


def test_a_namespace_label_counts(pair):
    apply(
        pair,
        ONLY_FRIENDS.replace(
            "podSelector: {matchLabels: {role", "namespaceSelector: {matchLabels: {team"
        ),
    )
    assert verdict(pair, "x/client", "x/server") == DENY
    apply(
        pair,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {team: friend}}\n",
    )
    assert verdict(pair, "x/client", "x/server") == ALLOW


def test_a_misspelt_manifest_changes_nothing(pair):
    bad = PODS + "    ---\n" + ONLY_FRIENDS.replace("ingress", "ingres")
    with pytest.raises(InputError, match=r"spec\.ingres"):
        apply(pair, bad.replace("app: client", "app: other"))
    state = load(pair)
    assert len(state.objects.items) == 3
    assert dict(pair.topology.pod("x/client").labels) == {"app": "client"}
    assert pair.agent.policies() == ()


def test_an_impossible_pod_takes_back_the_ones_before_it(pair):
    text = PODS.replace("name: client", "name: second").replace("nodeName: beta", "nodeName: gamma")
    with pytest.raises(InputError, match="node 'gamma' does not exist"):
        apply(pair, text)
    assert {pod.full_name for pod in pair.topology.pods} == {"x/server", "x/client"}


def test_pods_come_and_go(pair):
    deployment = """\
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web, namespace: x}
    spec:
      replicas: 3
      selector: {matchLabels: {app: web}}
      template:
        metadata: {labels: {app: web}}
        spec: {containers: [{name: c, image: nginx}]}
    """
    apply(pair, deployment)
    assert get(pair.pod("x/client"), pair.pod("x/web-3").address, 80) == b"web-3"
    apply(pair, deployment.replace("replicas: 3", "replicas: 1"))
    assert {p.full_name for p in pair.topology.pods} == {"x/server", "x/client", "x/web-1"}
    live.delete(pair, [("Deployment", "x", "web")])
    assert {p.full_name for p in pair.topology.pods} == {"x/server", "x/client"}


def test_a_service_finds_named_ports_and_leaves_out_what_is_not_ready(pair):
    text = """\
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: mixed, namespace: x}
    spec:
      replicas: 2
      selector: {matchLabels: {app: mixed}}
      template:
        metadata: {labels: {app: mixed}}
        spec:
          containers:
          - name: c
            image: nginx
            ports: [{name: http, containerPort: 8000}]
            readinessProbe: {httpGet: {port: http, path: /}}
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: broken, namespace: x, labels: {app: mixed}}
    spec:
      containers:
      - name: c
        image: nginx
        ports: [{name: http, containerPort: 8000}]
        readinessProbe: {tcpSocket: {port: 9999}}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: mixed, namespace: x}
    spec:
      selector: {app: mixed}
      ports: [{port: 80, targetPort: http}]
    """
    apply(pair, text)
    address = pair.service("x/mixed").address
    names = {get(pair.pod("x/client"), address, 80) for _ in range(30)}
    assert names == {b"mixed-1", b"mixed-2"}


def test_no_packet_is_lost_while_a_label_changes(pair):
    """A flow that both identities may have sees no gap when one becomes the other."""
    apply(pair, ONLY_FRIENDS.replace("{role: friend}", "{app: client}"))
    client, server = pair.pod("x/client"), pair.pod("x/server")
    with server.serve_udp(5000) as sink:
        for round_ in range(10):
            labels = f"{{app: client, round: r{round_}}}"
            apply(pair, PODS.replace("{app: client}", labels))
            assert client.send_udp(server, 5000, timeout_s=1.0).ok
        assert eventually(lambda: sink.received == 10, what="all datagrams")


CIDR = """\
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: {name: near, namespace: x}
    spec:
      podSelector: {matchLabels: {app: server}}
      ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]
"""


@pytest.mark.parametrize(
    ("semantics", "word"),
    [(Semantics.K8S, ALLOW), (Semantics.CILIUM, DENY)],
    ids=["k8s: a block matches pods", "cilium: a block never matches pods"],
)
def test_semantics(semantics, word):
    lab = build(PODS + "    ---\n" + CIDR, "semantics-test", semantics=semantics)
    try:
        assert verdict(lab, "x/client", "x/server") == word
    finally:
        lab.stop()


def test_an_unknown_object_cannot_be_deleted(pair):
    with pytest.raises(InputError, match="did you mean 'server'"):
        live.delete(pair, [("Pod", "x", "serve")])
