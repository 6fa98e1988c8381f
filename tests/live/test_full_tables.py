"""Full conntrack and NAT tables: old entries make room and are counted, and no packet is lost."""

import json
from dataclasses import replace

import pytest

from lab import Lab
from lab.cli.root import run
from lab.layouts.core import LIVES, Index, Word
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

MANY = 20_000  # more than cilium_ct_any4_global (16 384) and half of the NAT table hold
SENDER = """
import socket, sys
address, count = sys.argv[1], int(sys.argv[2])
for start in range(0, count, 500):
    for port in range(start, start + 500):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"x", (address, 10000 + port % 50000))
"""


@pytest.fixture(scope="module")
def lab():
    with Lab(topology, name="full") as lab:
        yield lab


def tables(capsys, node="alpha"):
    """Entries and evictions of the tables that evict, from ``lab bpf maps``."""
    assert run(["bpf", "maps", "full", "--node", node, "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    return {row["name"]: row for row in rows if row["evicted"] is not None}


def accounted(lab, name):
    """What one table was given and what the agent took out of it."""
    with lab.node("alpha").map("cilium_runtime_config") as words:
        return [words.lookup(Index(index=slot)) or Word(value=0) for slot in LIVES[name]]


def flood(lab, address):
    lab.pod("client").run(["python3", "-c", SENDER, str(address), str(MANY)], check=True)


def test_the_tables_that_evict_are_named_and_nothing_has_been_evicted_yet(lab, capsys):
    assert lab.pod("client").ping(lab.pod("server")).ok
    found = tables(capsys)
    assert {name: row["evicted"] for name, row in found.items()} == dict.fromkeys(LIVES, 0)
    assert found["cilium_ct_any4_global"]["entries"] > 0


def test_what_the_agent_collects_is_not_taken_for_evicted(lab, capsys):
    before = tables(capsys)["cilium_ct_any4_global"]
    with lab.node("alpha").map("cilium_ct_any4_global") as flows:
        for key, entry in flows.items():
            flows.update(key, replace(entry, lifetime=1))
    assert lab.node("alpha").agent.collect().ct_deleted == before["entries"]
    after = tables(capsys)["cilium_ct_any4_global"]
    assert (after["entries"], after["evicted"]) == (0, 0)


def test_more_flows_than_fit_evict_the_oldest_and_lose_nothing(lab, capsys):
    with (
        lab.pod("server").serve_tcp(8080),
        lab.world.serve_tcp(9000),
        lab.pod("client").session(lab.pod("server"), 8080) as session,
    ):
        flood(lab, lab.world.address)
        assert session.echo(b"still there") == b"still there"
        assert lab.pod("client").connect(lab.world, 9000, payload=b"new").reply == b"new"
    found = tables(capsys)
    for name in ("cilium_ct_any4_global", "cilium_snat_v4_external"):
        row = found[name]
        made, removed = (word.value for word in accounted(lab, name))
        assert made > row["max_entries"] >= row["entries"]
        assert row["evicted"] == made - removed - row["entries"] > 0
    assert found["cilium_ct4_global"]["evicted"] == 0
    assert drops(lab) == {}


def drops(lab):
    with lab.node("alpha").map("cilium_metrics") as metrics:
        return {key.reason: value.count for key, value in metrics.items() if key.reason >= 130}
