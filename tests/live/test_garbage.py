"""Garbage: what has expired goes, what lives stays, and NAT follows conntrack."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab import Lab
from lab.datapath.maps import open_view
from topologies.two_nodes import topology

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def lab():
    with Lab(topology) as lab:
        yield lab


def view(lab, name):
    return open_view(Path(lab.node("alpha").pin()), name)


def flow(lab, port):
    """A UDP flow of the client to the world, which is translated: conntrack and NAT entries."""
    with lab.world.serve_udp(port):
        assert lab.pod("client").send_udp(lab.world, port).ok


def entries(lab, name, port):
    with view(lab, name) as found:
        return [(k, v) for k, v in found.items() if port in (k.sport, k.dport)]


def rewrite(lab, name, port, **change):
    with view(lab, name) as table:
        for key, value in table.items():
            if port in (key.sport, key.dport):
                table.update(key, replace(value, **change))


def test_expired_flow_is_removed_and_a_live_one_stays(lab):
    flow(lab, 7001)
    flow(lab, 7002)
    rewrite(lab, "cilium_ct_any4_global", 7001, lifetime=1)
    collected = lab.node("alpha").agent.collect()
    assert collected.ct_deleted == 1
    assert collected.ct_seen >= 2
    assert entries(lab, "cilium_ct_any4_global", 7001) == []
    assert len(entries(lab, "cilium_ct_any4_global", 7002)) == 1


def test_nat_entries_go_with_their_flow_but_not_before(lab):
    flow(lab, 7003)
    node = lab.node("alpha").agent
    rewrite(lab, "cilium_snat_v4_external", 7003, created=1)
    node.collect()
    assert len(entries(lab, "cilium_snat_v4_external", 7003)) == 2
    rewrite(lab, "cilium_ct_any4_global", 7003, lifetime=1)
    assert node.collect().nat_deleted == 2
    assert entries(lab, "cilium_snat_v4_external", 7003) == []


def test_the_nodes_own_translated_flow_is_alive_too(lab):
    """A pod has taken the port: what the node sends from it leaves, and comes back, by another."""
    alpha = lab.node("alpha")
    with lab.world.serve_udp(7005):
        for source in (lab.pod("client"), alpha):
            assert source.send_udp(lab.world, 7005, source_port=40000).ok
    rewrite(lab, "cilium_snat_v4_external", 7005, created=1)
    alpha.agent.collect()
    kept = entries(lab, "cilium_snat_v4_external", 7005)
    assert sorted(value.to_port for _, value in kept) == [40000, 40000, 40000, 40001]


def test_much_garbage_makes_the_next_collection_come_sooner(lab):
    node = lab.node("alpha").agent
    calm = node.collect().next_s
    for port in range(7100, 7120):
        flow(lab, port)
        rewrite(lab, "cilium_ct_any4_global", port, lifetime=1)
    assert node.collect().next_s < calm
