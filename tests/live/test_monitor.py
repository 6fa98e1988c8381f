"""``lab monitor`` hears every node's datapath, and a ring has one reader."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import Lab, Node, Pod, Topology
from lab.datapath.events import DropEvent, PolicyVerdictEvent, TraceEvent
from lab.errors import InputError
from lab.observe.monitor import Monitor
from lab.waiting import eventually

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = Topology(
    name="heard",
    nodes=(Node("alpha"), Node("beta")),
    pods=(Pod("client", node="alpha"), Pod("server", node="beta")),
)


@pytest.fixture(scope="module")
def lab():
    with Lab(TOPOLOGY) as live:
        yield live


def monitor(lab, folder, *nodes):
    pins = {name: Path(lab.node(name).pin()) for name in nodes}
    return Monitor(pins, folder)


def test_one_ping_is_heard_on_its_whole_way(lab, tmp_path):
    client, server = lab.pod("client"), lab.pod("server")
    with monitor(lab, tmp_path, "alpha", "beta") as heard:
        assert client.ping(server).ok
        told = list(heard.read(wait_ms=1000))
        assert heard.lost == 0

    def points(node):
        return [
            (one.event.name, one.event.reason)
            for one in told
            if one.node == node and isinstance(one.event, TraceEvent) and one.event.source
            if one.event.packet[12:14] != b"\x08\x06"
        ]

    assert ("FROM_LXC", "new") in points("alpha")
    assert ("TO_OVERLAY", "new") in points("alpha")
    assert ("FROM_OVERLAY", "new") in points("beta")
    assert ("TO_LXC", "new") in points("beta")
    assert ("TO_LXC", "reply") in points("alpha")
    verdicts = {
        (one.node, one.event.direction, one.event.allowed)
        for one in told
        if isinstance(one.event, PolicyVerdictEvent)
    }
    assert verdicts == {("alpha", "egress", True), ("beta", "ingress", True)}


def test_a_spoofed_source_is_heard_as_a_drop(lab, tmp_path):
    client = lab.pod("client")
    client.run(["ip", "addr", "add", "10.0.1.99/32", "dev", "lo"], check=True)
    with monitor(lab, tmp_path, "alpha") as heard:
        client.run(["ping", "-c1", "-W0.1", "-I", "10.0.1.99", str(lab.pod("server").address)])
        drops = [one.event for one in heard.read(wait_ms=1000) if isinstance(one.event, DropEvent)]
    assert {drop.name for drop in drops} == {"DROP_INVALID_SIP"}
    assert drops[0].source == client.facts.endpoint_id


def test_a_second_reader_is_refused_until_the_first_ends(lab, tmp_path):
    with monitor(lab, tmp_path, "alpha"):
        with pytest.raises(InputError, match="'alpha' already"):
            monitor(lab, tmp_path, "beta", "alpha")
        with monitor(lab, tmp_path, "beta"):
            pass  # the refused one gave beta back
    with monitor(lab, tmp_path, "alpha") as heard:
        assert lab.pod("client").ping(lab.pod("server")).ok
        assert heard.read(wait_ms=1000)


def test_the_command_prints_one_json_object_per_event(lab):
    words = ["monitor", lab.name, "-t", "trace", "--related-to", "server", "-c", "2", "-o", "json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "lab", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        assert running.stderr.readline().startswith("Listening for events on ")
        eventually(
            lambda: lab.pod("client").ping(lab.pod("server")).ok and running.poll() is not None,
            within_s=10,
            what="two events",
        )
        rows = [json.loads(line) for line in running.stdout]
    assert running.returncode == 0
    number = lab.pod("server").facts.endpoint_id
    assert len(rows) == 2
    assert all(number in (row["source"], row["dst_endpoint"]) for row in rows)
    assert {row["node"] for row in rows} == {"beta"}
