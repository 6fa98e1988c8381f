"""``lab bpf`` prints what bpftool reads from the same pins, field by field."""

import json
import os
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab import Lab, Node, Pod, Topology
from lab.kernel import process

pytestmark = pytest.mark.live

TOPOLOGY = Topology(
    name="listed",
    nodes=(Node("alpha"), Node("beta")),
    pods=(
        Pod("client", node="alpha", labels={"app": "client"}),
        Pod("server", node="beta", labels={"app": "server"}),
    ),
)


@pytest.fixture(scope="module")
def lab():
    with Lab(TOPOLOGY) as live:
        client, server = live.pod("client"), live.pod("server")
        assert client.ping(server).ok
        with server.serve_tcp(80):
            assert client.connect(server, 80, payload=b"x").ok
        client.close()
        server.close()
        yield live


def run(lab, *words, check=True):
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "lab", "bpf", *words, "--lab", lab.name]
    return process.run(command, env=environment, check=check)


def listed(lab, *words):
    return json.loads(run(lab, *words, "-o", "json").stdout)


def dumped(lab, node, name):
    """What bpftool shows with the C names of the fields (BTF)."""
    pin = lab.node(node).pin("tc/globals", name)
    entries = json.loads(process.run(["bpftool", "-j", "map", "dump", "pinned", pin]).stdout)
    return [entry["formatted"] for entry in entries]


def address(number):
    return str(IPv4Address(number.to_bytes(4, "little")))


def port(number):
    return int.from_bytes(number.to_bytes(2, "little"), "big")


def test_ipcache(lab):
    expected = {
        (e["key"]["prefixlen"], e["value"]["sec_identity"], address(e["value"]["tunnel_endpoint"]))
        for e in dumped(lab, "alpha", "cilium_ipcache")
    }
    rows = listed(lab, "ipcache", "list", "--node", "alpha")
    fields = ("sec_identity", "tunnel_endpoint")
    found = {(r["key"]["prefixlen"], *(r["value"][f] for f in fields)) for r in rows}
    assert found == expected
    assert len(rows) == len(dumped(lab, "alpha", "cilium_ipcache"))


def test_endpoints(lab):
    expected = {
        (
            address(e["key"]["ip4"]),
            e["value"]["lxc_id"],
            e["value"]["ifindex"],
            e["value"]["sec_id"],
        )
        for e in dumped(lab, "beta", "cilium_lxc")
    }
    rows = listed(lab, "endpoint", "list", "--node", "beta")
    fields = ("lxc_id", "ifindex", "sec_id")
    assert {(r["key"]["ip4"], *(r["value"][f] for f in fields)) for r in rows} == expected


def test_tunnels_of_all_nodes(lab):
    expected = {
        (node, address(e["key"]["ip4"]), address(e["value"]["ip4"]))
        for node in ("alpha", "beta")
        for e in dumped(lab, node, "cilium_tunnel_map")
    }
    rows = listed(lab, "tunnel", "list")
    assert {(r["node"], r["key"]["ip4"], r["value"]["ip4"]) for r in rows} == expected


def test_conntrack_of_tcp_and_icmp(lab):
    expected = {
        (
            address(e["key"]["saddr"]),
            address(e["key"]["daddr"]),
            port(e["key"]["sport"]),
            port(e["key"]["dport"]),
            e["key"]["nexthdr"],
            e["value"]["tx_packets"],
            e["value"]["flags"],
        )
        for name in ("cilium_ct4_global", "cilium_ct_any4_global")
        for e in dumped(lab, "alpha", name)
    }
    rows = listed(lab, "ct", "list", "global", "--node", "alpha")
    keys, values = ("saddr", "daddr", "sport", "dport", "nexthdr"), ("tx_packets", "flags")
    found = {(*(r["key"][k] for k in keys), *(r["value"][v] for v in values)) for r in rows}
    assert found == expected
    protocols = {row["key"]["nexthdr"] for row in rows}
    assert protocols >= {1, 6}
    client, server = lab.pod("client").address, lab.pod("server").address
    assert any(
        r["text"].startswith(f"TCP OUT {client}:") and f"{server}:80 " in r["text"] for r in rows
    )


def test_metrics_are_summed_over_the_cpus(lab):
    pin = lab.node("alpha").pin("tc/globals", "cilium_metrics")
    entries = json.loads(process.run(["bpftool", "-j", "map", "dump", "pinned", pin]).stdout)
    expected = {
        (
            e["formatted"]["key"] >> 2,
            e["formatted"]["key"] & 3,
            sum(v["value"]["count"] for v in e["formatted"]["values"]),
            sum(v["value"]["bytes"] for v in e["formatted"]["values"]),
        )
        for e in entries
        if any(v["value"]["count"] for v in e["formatted"]["values"])
    }
    assert len(entries) == 1024
    assert expected
    rows = listed(lab, "metrics", "list", "--node", "alpha")
    found = {
        (r["key"]["reason"], r["key"]["dir"], r["value"]["count"], r["value"]["bytes"])
        for r in rows
    }
    assert found == expected


def test_policy_of_a_pod_by_name_and_by_endpoint_id(lab):
    number = lab.pod("client").facts.endpoint_id
    expected = {
        (e["key"]["sec_label"], e["key"]["dport"], e["key"]["protocol"], e["key"]["egress_wild"])
        for e in dumped(lab, "alpha", f"cilium_policy_{number:05d}")
    }
    by_name, by_id = (
        listed(lab, "policy", "get", "client"),
        listed(lab, "policy", "get", str(number)),
    )
    fields = ("sec_label", "dport", "protocol", "egress_wild")
    assert {tuple(r["key"][f] for f in fields) for r in by_name} == expected
    assert [r["key"] for r in by_name] == [r["key"] for r in by_id]


def test_maps_lists_every_pin_of_every_node(lab):
    for node in ("alpha", "beta"):
        folder = Path(lab.node(node).pin("tc/globals"))
        rows = json.loads(run(lab, "maps", "--node", node, "-o", "json").stdout)
        assert [row["name"] for row in rows] == sorted(path.name for path in folder.iterdir())
        shown = json.loads(process.run(["bpftool", "-j", "map", "show"]).stdout)
        known = {one["id"]: one for one in shown}
        for row in rows:
            one = known[row["id"]]
            assert (row["type"], row["key_bytes"], row["value_bytes"], row["max_entries"]) == (
                one["type"],
                one["bytes_key"],
                one["bytes_value"],
                one["max_entries"],
            )


@pytest.mark.parametrize(
    "words",
    [
        "nat list",
        "lb list",
        "lb list --backends",
        "lb list --revnat",
        "lb list --source-ranges",
        "frag list",
        "ipmasq list",
        "neigh list",
        "prefilter list",
        "dump cilium_lb4_affinity",
    ],
)
def test_empty_maps_are_listed_without_rows(lab, words):
    assert listed(lab, *words.split()) == []
    assert run(lab, *words.split(), "--node", "alpha").returncode == 0


MISTAKES = {
    "a node that is not there": (["tunnel", "list", "--node", "alphq"], "did you mean 'alpha'"),
    "an endpoint that is not there": (["policy", "get", "nobody"], "(client)"),
    "a table that does not exist": (["ct", "list", "local"], "ct list global"),
    "no address": (["ipcache", "get", "server"], "10.0.1.10"),
    "an unknown map": (["dump", "cilium_nothing"], "lab bpf maps"),
}


@pytest.mark.parametrize(("words", "hint"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_end_with_2_and_a_hint(lab, words, hint):
    done = run(lab, *words, check=False)
    assert (done.returncode, hint in done.stderr) == (2, True)


def test_a_nodes_map_is_read_in_structures(lab):
    with lab.node("alpha").map("cilium_lxc") as endpoints:
        found = {key.ip4: value.lxc_id for key, value in endpoints.items()}
    client = lab.pod("client")
    assert found[client.address] == client.facts.endpoint_id
