"""``lab monitor`` hears every node's datapath, and a ring has one reader."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab import Lab, Node, Pod, Topology
from lab.datapath.events import DropEvent, PolicyVerdictEvent, TraceEvent
from lab.errors import InputError
from lab.layouts.core import Aggregation, Index
from lab.observe import told
from lab.observe.monitor import Monitor
from lab.runtime.messages import receive
from lab.waiting import eventually

pytestmark = pytest.mark.live

NONE, MEDIUM = Aggregation.NONE, Aggregation.MEDIUM
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
    return Monitor(lab, nodes, folder)


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


def aggregation(lab, node):
    """How much a node tells, as its map has it."""
    return lab.node(node).map("cilium_runtime_config").lookup(Index(index=2)).value


def command(lab, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "lab", "monitor", lab.name, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def is_listening(running):
    return running.stderr.readline().startswith("Listening for events on ")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_a_monitor_ends_its_nodes_tell_less_again_and_others_do_not(lab, tmp_path, number):
    with monitor(lab, tmp_path, "beta"), command(lab, "--node", "alpha") as running:
        assert is_listening(running)
        assert [aggregation(lab, node) for node in ("alpha", "beta")] == [NONE, NONE]
        running.send_signal(number)
        eventually(lambda: aggregation(lab, "alpha") == MEDIUM, within_s=10, what="less is told")
        assert aggregation(lab, "beta") == NONE
    assert aggregation(lab, "beta") == MEDIUM


def test_the_next_listener_of_a_node_does_not_lose_what_the_first_gives_back(lab):
    first, second = (lab.keeper.spawn(told.SERVICE, nodes=["alpha"]) for _ in range(2))
    with first, second:
        for one in (first, second):
            receive(one)
        for one, left in ((first, NONE), (second, MEDIUM)):
            one.shutdown(socket.SHUT_WR)
            assert one.recv(1) == b"", "it has ended"
            assert aggregation(lab, "alpha") == left


def test_the_command_prints_one_json_object_per_event(lab):
    words = ["-t", "trace", "--related-to", "server", "-c", "2", "-o", "json"]
    with command(lab, *words) as running:
        assert is_listening(running)
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
