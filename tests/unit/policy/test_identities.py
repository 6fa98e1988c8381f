"""Identities: equal labels share a number, numbers stay, networks nest."""

from lab.policy.identities import IdentityTable, Refinement, cidr_labels, pod_labels
from lab.policy.objects import Cluster, ContainerPort, Semantics, Workload

POD = Workload(
    name="a",
    namespace="shop",
    node="one",
    address="10.0.1.10",
    labels={"app": "web", "pod-template-hash": "5f"},
    ports=(ContainerPort("http", 8080),),
)
CLUSTER = Cluster(namespaces={"shop": {"team": "red"}}, workloads=(POD,))


def test_labels_of_pod_and_namespace_are_part_of_the_identity():
    assert pod_labels(CLUSTER, POD, Semantics.CILIUM, Refinement()) == (
        "k8s:app=web",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
        "k8s:io.cilium.k8s.namespace.labels.team=red",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.cilium.k8s.policy.serviceaccount=default",
        "k8s:io.kubernetes.pod.namespace=shop",
    )


def test_kubernetes_semantics_tells_apart_what_policies_tell_apart():
    refinement = Refinement(frozenset({"10.0.1.0/28", "10.0.2.0/24"}), frozenset({("http", 6)}))
    found = pod_labels(CLUSTER, POD, Semantics.K8S, refinement)
    assert "ipblock:10.0.1.0/28=" in found
    assert "ipblock:10.0.2.0/24=" not in found
    assert "port:http/6=8080" in found
    assert "k8s:pod-template-hash=5f" in found


def test_numbers_begin_at_256_and_stay_when_others_come_and_go():
    table = IdentityTable()
    table.update([("k8s:app=b",), ("k8s:app=c",)], ())
    table.update([("k8s:app=a",), ("k8s:app=c",)], ())
    assert table.allocated == {("k8s:app=a",): 258, ("k8s:app=c",): 257}


def test_numbers_are_used_again_only_after_all_others():
    table = IdentityTable()
    seen = set()
    for number in range(65535 - 256 + 1):
        table.update([(f"k8s:n={number}",)], ())
        seen |= set(table.allocated.values())
    assert seen == set(range(256, 65536))
    table.update([("k8s:n=again",)], ())
    assert set(table.allocated.values()) == {256}


def test_one_who_keeps_the_highest_number_does_not_make_others_reuse_theirs_at_once():
    table = IdentityTable({("k8s:n=old",): 65535})
    seen = []
    for number in range(3):
        table.update([("k8s:n=old",), (f"k8s:n={number}",)], ())
        seen.append(table.allocated[f"k8s:n={number}",])
    assert seen == [256, 257, 258]


def test_a_table_that_goes_on_with_anothers_numbers_reuses_none_of_those_given_back():
    before = IdentityTable()
    before.update([("k8s:n=stays",), ("k8s:n=goes",)], ["10.0.0.0/8", "11.0.0.0/8"])
    before.update([("k8s:n=stays",)], ["11.0.0.0/8"])
    after = IdentityTable(before.allocated, before.networks, before.last)
    after.update([("k8s:n=new",), ("k8s:n=stays",)], ["11.0.0.0/8", "12.0.0.0/8"])
    assert after.allocated == {("k8s:n=stays",): 257, ("k8s:n=new",): 258}
    assert after.networks == {"11.0.0.0/8": (1 << 24) + 2, "12.0.0.0/8": (1 << 24) + 3}


def test_networks_have_local_identities_above_2_to_the_24():
    table = IdentityTable()
    identities = table.update((), ("10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0"))
    assert table.networks == {"10.0.0.0/8": (1 << 24) + 1, "10.1.0.0/16": (1 << 24) + 2}
    assert "cidr:0.0.0.0/0=" in identities[2].labels


def test_a_network_carries_the_labels_of_all_networks_around_it():
    found = cidr_labels("10.1.0.0/16", ("10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"))
    assert {"cidr:10.0.0.0/8=", "cidr:10.1.0.0/16=", "reserved:world="} <= set(found)
    assert "cidr:11.0.0.0/8=" not in found
