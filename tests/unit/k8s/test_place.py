"""Pods get nodes and addresses, always the same ones."""

import pytest

from lab.errors import InputError
from lab.k8s.place import place, undescribed_namespaces
from lab.k8s.read import read_text


def deployment(name, replicas, kind="Deployment", extra=""):
    return (
        f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n"
        f"  selector: {{matchLabels: {{app: {name}}}}}\n"
        + (f"  replicas: {replicas}\n" if replicas is not None else "")
        + f"  template: {{metadata: {{labels: {{app: {name}}}}}, spec: "
        f"{{containers: [{{name: c}}]{extra}}}}}\n---\n"
    )


def pod(name, extra="", namespace="default"):
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{containers: [{{name: c}}]{extra}}}\n---\n"
    )


def node(name, labels="{}"):
    return f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {labels}}}\n---\n"


def where(text, **arguments):
    world = place(read_text(text), name="t", **arguments)
    return {p.full_name: (p.node, p.address) for p in world.topology.pods}


def test_replicas_spread_over_nodes_and_number_from_one():
    assert where(deployment("web", 3)) == {
        "web-1": ("alpha", "10.0.1.10"),
        "web-2": ("beta", "10.0.2.10"),
        "web-3": ("alpha", "10.0.1.11"),
    }


def test_a_daemon_set_has_one_pod_per_node():
    text = node("n1") + node("n2") + node("n3") + deployment("agent", None, "DaemonSet")
    assert [name for name in where(text)] == ["agent-n1", "agent-n2", "agent-n3"]


def test_pods_of_a_stateful_set_number_from_zero_and_carry_their_name():
    world = place(read_text(deployment("db", 2, "StatefulSet")), name="t")
    assert [w.labels["statefulset.kubernetes.io/pod-name"] for w in world.cluster.workloads] == [
        "db-0",
        "db-1",
    ]


def test_nodes_that_pods_name_come_into_being():
    assert where(pod("a", ", nodeName: gamma"))["a"] == ("gamma", "10.0.1.10")


def test_node_selector_chooses_the_node():
    text = node("n1") + node("n2", "{disk: ssd}") + pod("a", ", nodeSelector: {disk: ssd}")
    assert where(text)["a"][0] == "n2"


@pytest.mark.parametrize("nodes", ["", node("alpha")], ids=["of nobody's manifest", "written"])
def test_nodes_have_the_labels_that_a_kubelet_gives_them(nodes):
    wanted = ", nodeSelector: {kubernetes.io/os: linux, kubernetes.io/hostname: alpha}"
    assert where(nodes + pod("a", wanted))["a"][0] == "alpha"


def test_a_written_label_of_a_node_counts_instead():
    text = node("n1") + node("n2", "{kubernetes.io/arch: s390x}")
    assert where(text + pod("a", ", nodeSelector: {kubernetes.io/arch: s390x}"))["a"][0] == "n2"


def test_pods_that_run_keep_node_and_address():
    first = place(read_text(deployment("web", 2)), name="t")
    again = place(read_text(pod("new") + deployment("web", 2)), name="t", keep=first.placement)
    found = {p.full_name: (p.node, p.address) for p in again.topology.pods}
    assert found["web-1"] == ("alpha", "10.0.1.10")
    assert found["web-2"] == ("beta", "10.0.2.10")
    assert found["new"][1] not in ("10.0.1.10", "10.0.2.10")


REFUSED = {
    "misspelt namespace": (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n"
        + pod("a", namespace="shpo"),
        "namespace 'shpo' does not exist",
    ),
    "unknown node": (node("n1") + pod("a", ", nodeName: n2"), "node 'n2' does not exist"),
    "no node with the labels": (
        node("n1") + pod("a", ", nodeSelector: {disk: ssd}"),
        "no node has the labels disk=ssd",
    ),
    "two pods of one name": (
        pod("web-1") + deployment("web", 1),
        "two pods are called 'default/web-1'",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(text, message):
    with pytest.raises(InputError, match=message):
        where(text)


def test_a_namespace_that_nothing_describes_has_no_labels_but_its_name():
    objects = read_text(pod("a", namespace="prod"))
    assert undescribed_namespaces(objects) == ("prod",)
    cluster = place(objects, name="t").cluster
    assert cluster.namespace_labels("prod") == {"kubernetes.io/metadata.name": "prod"}
