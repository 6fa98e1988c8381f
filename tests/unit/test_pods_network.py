"""Where no service can be, so that none is looked up for a packet that goes there."""

from ipaddress import IPv4Network

import pytest

from lab import Node, Topology
from lab.plan.inventory import inventory

CASES = {
    "one node: its pods'": (("10.0.1.0/24",), ("10.0.1.0/24",)),
    "two neighbours: all pods'": (("10.0.1.0/24", "10.0.2.0/24"), ("10.0.0.0/22",) * 2),
    "of different size": (("10.244.0.0/16", "10.245.8.0/24"), ("10.244.0.0/15",) * 2),
    "services between them: each its own": (
        ("10.95.0.0/24", "10.97.0.0/24"),
        ("10.95.0.0/24", "10.97.0.0/24"),
    ),
    "the underlay between them": (
        ("172.29.1.0/24", "172.31.1.0/24"),
        ("172.29.1.0/24", "172.31.1.0/24"),
    ),
    "far apart: everything lies between them": (
        ("10.0.1.0/24", "192.168.7.0/24"),
        ("10.0.1.0/24", "192.168.7.0/24"),
    ),
}


@pytest.mark.parametrize(("cidrs", "networks"), CASES.values(), ids=CASES.keys())
def test_the_pods_network(cidrs, networks):
    nodes = tuple(Node(f"n{number}", pod_cidr=cidr) for number, cidr in enumerate(cidrs))
    facts = inventory(Topology(name="t", nodes=nodes))
    found = tuple(facts.pods_network(node) for node in facts.nodes)
    assert found == tuple(map(IPv4Network, networks))
