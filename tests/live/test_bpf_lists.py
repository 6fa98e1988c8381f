"""Every list of ``lab bpf`` with real entries in it, beside ``bpftool map dump`` of the same pins.

bpftool gives bytes. What the lab printed as JSON is packed again and must be those bytes: nothing
is left out, nothing made up, and the text of each row speaks of the same entry.
"""

import json
from dataclasses import fields, replace
from ipaddress import IPv4Address

import pytest

from lab import Lab, Options, Service, ServicePort
from lab.cli.root import run
from lab.kernel import process
from lab.layouts.maps import map_layout
from lab.policy.objects import NetworkPolicy, NetworkRule, Peer, Port, Selector
from lab.waiting import eventually
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

OPTIONS = Options(
    prefilter=True, lb_algorithm="maglev", masquerade_exceptions=("192.0.2.0/24", "192.0.2.1/32")
)
GUARD = NetworkPolicy(
    name="guard",
    pod_selector=Selector.of(app="client"),
    ingress=(NetworkRule((Peer(Selector.of(app="server")),), (Port("TCP", 80),)),),
)
SHOP = Service(
    name="shop",
    kind="LoadBalancer",
    ports=(ServicePort(80, 8080, node_port=30080), ServicePort(53, 5353, "UDP", name="dns")),
    backends=("web", "server"),
    source_ranges=("172.30.0.0/24", "203.0.113.0/24"),
    affinity_s=600,
)


@pytest.fixture(scope="module")
def lab():
    with Lab(replace(topology, options=OPTIONS), name="lists") as lab:
        lab.node("alpha").agent.prefilter("198.51.100.0/24", "198.51.100.7")
        lab.apply(SHOP)
        lab.apply(GUARD)
        talk(lab)
        for place in (*map(lab.pod, ("client", "web", "server")), lab.world):
            place.close()  # the fewer packets, the sooner two readings are the same
        yield lab


def talk(lab):
    """Fill the tables that packets fill."""
    client, server = lab.pod("client"), lab.pod("server")
    address = lab.service("shop").address
    assert client.ping(server).ok
    with lab.pod("web").serve_tcp(8080), server.serve_tcp(8080):
        assert client.connect(address, 80, payload=b"x").ok
        assert lab.world.connect(lab.node("alpha"), 30080, payload=b"x").ok
    with lab.world.serve_udp(9000), lab.world.serve_tcp(9001):
        assert client.send_udp(lab.world, 9000, payload=bytes(4000)).ok
        assert client.connect(lab.world, 9001, payload=b"x").ok
        assert client.ping(lab.world).ok


LISTS = {
    "ct list global": ("cilium_ct4_global", "cilium_ct_any4_global"),
    "nat list": ("cilium_snat_v4_external",),
    "lb list": ("cilium_lb4_services_v2",),
    "lb list --backends": ("cilium_lb4_backends",),
    "lb list --revnat": ("cilium_lb4_reverse_nat",),
    "lb list --source-ranges": ("cilium_lb4_source_range",),
    "ipcache list": ("cilium_ipcache",),
    "endpoint list": ("cilium_lxc",),
    "tunnel list": ("cilium_tunnel_map",),
    "affinity list": ("cilium_lb4_affinity",),
    "frag list": ("cilium_ipv4_frag_datagrams",),
    "ipmasq list": ("cilium_ipmasq_v4",),
    "neigh list": ("cilium_nodeport_neigh4",),
    "prefilter list": ("cilium_cidr_v4_fix", "cilium_cidr_v4_dyn"),
    "policy get client": ("cilium_policy_00266",),
    "dump cilium_lb_affinity_match": ("cilium_lb_affinity_match",),
    "dump cilium_lb4_maglev": ("cilium_lb4_maglev",),
    "dump cilium_runtime_config": ("cilium_runtime_config",),
}


def listed(capsys, words, form):
    node = [] if words.startswith("policy") else ["--node", "alpha"]
    capsys.readouterr()
    assert run(["bpf", *words.split(), "--lab", "lists", *node, "-o", form]) == 0
    return capsys.readouterr().out


def memory(kind, printed):
    """A structure's bytes from its JSON."""
    values = {}
    for field in fields(kind):
        if field.name in printed:
            value = printed[field.name]
            is_address = isinstance(field.default, IPv4Address)
            values[field.name] = IPv4Address(value) if is_address else value
    return kind(**values).pack()


def dumped(lab, name):
    """Key and value of every entry as bpftool reads them."""
    pin = lab.node("alpha").pin("tc/globals", name)
    argv = ["bpftool", "-j", "map", "dump", "pinned", pin]
    found = []
    for row in json.loads(process.run(argv, check=True).stdout):
        value = row.get("value", row.get("inner_map_id"))
        found.append((octets(row["key"]), octets(value)))
    return found


def octets(cells):
    if isinstance(cells, list):
        return bytes(int(cell, 16) for cell in cells)
    return int(cells).to_bytes(4, "little")


def at_rest(lab, capsys, words, names):
    """What bpftool reads and what the lab prints, if nothing has changed in between."""
    before = sorted(entry for name in names for entry in dumped(lab, name))
    rows = json.loads(listed(capsys, words, "json"))
    after = sorted(entry for name in names for entry in dumped(lab, name))
    return (before, rows) if before == after else None


@pytest.mark.parametrize(("words", "names"), LISTS.items(), ids=LISTS.keys())
def test_what_is_listed_is_what_bpftool_dumps(lab, capsys, words, names):
    expected, rows = eventually(lambda: at_rest(lab, capsys, words, names), within_s=20)
    layout = map_layout(names[0])
    found = sorted((memory(layout.key, r["key"]), memory(layout.value, r["value"])) for r in rows)
    assert found == expected
    assert found, "an empty map proves nothing"
    if not words.startswith("dump"):
        text = listed(capsys, words, "table").replace(" ", "")
        assert all(row["text"].split("expires=")[0].split("Created=")[0].replace(" ", "") in text
                   for row in rows)  # fmt: skip


def test_without_an_endpoint_the_policies_of_all_are_listed(lab, capsys):
    capsys.readouterr()
    assert run(["bpf", "policy", "get", "--lab", "lists"]) == 0
    headed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    assert headed == [
        f"# endpoint {pod.endpoint_id}, pod {pod.name} on {pod.node}" for pod in lab.facts.pods
    ]
    assert run(["bpf", "policy", "get", "--lab", "lists", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    numbers = {(row["node"], row["endpoint"]) for row in rows}
    assert numbers == {(pod.node, pod.endpoint_id) for pod in lab.facts.pods}
