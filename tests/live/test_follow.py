"""Following others' traffic: what is shown, what a filter leaves, and that nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from lab.cli.trace import write_pages
from lab.observe.cost import cost_of_a_sight_us
from lab.observe.filter import parse_filter
from lab.observe.tracer import Tracer
from lab.observe.watch import narrowed, vocabulary
from lab.waiting import eventually
from tests.live.following import acquainted
from topologies.two_nodes import topology

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def lab():
    with acquainted(topology) as lab:
        yield lab


def traffic(lab):
    """Something of every kind between pods, nodes and outside; some of it dropped."""
    client, server = lab.pod("client"), lab.pod("server")
    with server.serve_udp(5000), server.serve_tcp(80):
        client.send_udp(server, 5000)
        client.connect(server, 80, payload=b"x" * 100)
        client.send_udp(server, 5001, timeout_s=0.05)  # nobody listens
        server.ping(client)
        client.ping(lab.node("beta"))
        lab.world.ping(lab.node("alpha"))


FILTERS = (
    "icmp",
    "udp and dropped",
    "from == client",
    "src == 10.0.1.10 and protocol == tcp",
    "to == server and udp",
    "node == beta and not tcp",
    "drop_reason == NO_SOCKET",
    "identity == app=client and dport in (5000, 80)",
    "outer host 172.30.0.0/24 and inner dst 10.0.2.10",
)


@pytest.fixture(scope="module")
def side_by_side(lab):
    """The same traffic as an unfiltered recording, and as one tracer per filter kept of it."""
    tracers = {text: Tracer(lab) for text in FILTERS}
    with Tracer(lab) as everything:
        everything.everything()
        for text, tracer in tracers.items():
            flow = narrowed(parse_filter(text, vocabulary(lab)), lab)
            if flow is None:
                tracer.everything()
            else:
                tracer.only_flow(flow)
        traffic(lab)
        whole = everything.traces()
        parts = {text: tracer.traces() for text, tracer in tracers.items()}
    for tracer in tracers.values():
        tracer.close()
    return whole, parts


@pytest.mark.parametrize("text", FILTERS)
def test_narrowing_in_the_kernel_changes_no_selection(lab, side_by_side, text):
    whole, parts = side_by_side
    wanted = parse_filter(text, vocabulary(lab))
    expected = sorted(str(one.packet) for one in whole if wanted.matches(one))
    assert expected
    assert sorted(str(one.packet) for one in parts[text] if wanted.matches(one)) == expected


LIGHT = {"with every probe": False, "lightly": True}


@pytest.mark.parametrize("light", LIGHT.values(), ids=LIGHT.keys())
def test_traffic_that_we_did_not_send_is_followed_to_its_socket(lab, light):
    client, server = lab.pod("client"), lab.pod("server")
    with (
        server.serve_udp(5000),
        lab.watch("from == client and dport == 5000", count=2, duration_s=10, light=light) as seen,
    ):
        for _ in range(2):
            client.run(["python3", "-c", "import socket; s = socket.socket(type=2);"
                        "s.sendto(b'x', ('10.0.2.10', 5000))"], check=True)  # fmt: skip
        packets = list(seen)
    assert [(one.delivered, one.packet.receiver) for one in packets] == [(True, "server")] * 2
    assert (seen.shown, seen.lost) == (2, 0)


def test_following_ends_when_its_time_is_over(lab):
    with lab.watch("tcp", duration_s=0.2) as seen:
        assert list(seen) == []


@pytest.fixture
def running(tmp_path):
    with acquainted(topology, name=f"followed-{os.getpid()}") as lab:
        yield lab


def children(lab):
    listed = subprocess.run(["pgrep", "-P", str(lab.keeper.record.pid)], capture_output=True)
    return set(listed.stdout.split())


def test_ctrl_c_ends_it_cleanly_and_takes_the_probes_away(running):
    lab = running
    before = children(lab)
    command = [sys.executable, "-m", "lab", "trace", f"{lab.name}/client", "server", "--follow"]
    with subprocess.Popen(
        [*command, "--icmp", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as cli:
        assert "following" in cli.stderr.readline()
        lab.pod("client").ping(lab.pod("server"), count=2)
        lines = [json.loads(cli.stdout.readline()) for _ in range(2)]
        cli.send_signal(signal.SIGINT)
        _, said = cli.communicate(timeout=20)
    assert cli.returncode == 0
    assert [line["packet"]["info"] for line in lines] == ["echo request"] * 2
    assert "2 packets shown" in said
    eventually(lambda: children(lab) == before, what="the collector is gone")


def test_the_world_sends_from_the_address_that_reaches_the_goal(lab):
    recording = lab.follow("world", "alpha", protocol="icmp")
    first = recording.packets[0].packet
    assert (first.source, first.info, recording.error) == ("172.30.0.254", "echo request", "")


def test_the_error_of_a_packet_that_cannot_leave_says_why(lab, capsys):
    from lab.errors import CheckFailed

    with pytest.raises(CheckFailed, match="ENETUNREACH"):
        lab.follow("world", "client", protocol="icmp")


def test_the_way_of_a_flooded_packet_is_that_of_the_copy_that_arrives(lab):
    """A bridge that forgot every address gives the frame to all its ports."""
    lab.underlay.run(["ip", "link", "set", "br0", "type", "bridge", "fdb_flush"], check=True)
    recording = lab.follow("client", "server")
    trace = recording.packets[0]
    assert any(str(tie).startswith("cloned as") for tie in trace.ties)
    assert (trace.delivered, trace.drops) == (True, ())
    assert (trace.taken[0].namespace, trace.taken[-1].namespace) == ("client", "server")
    assert {hop.namespace for hop in trace.taken} == {
        "client", "alpha", "underlay", "beta", "server"
    }  # fmt: skip
    times = [hop.us for hop in trace.taken if hop.evidence.word == "tracepoint"]
    assert times == sorted(times)


def test_every_picture_of_a_packet_is_written_at_once(lab, tmp_path):
    """One shot: page, drawing, figure, and a capture in which tshark finds the hooks in order."""
    packets = lab.follow("client", "server").packets
    names = {"html": "t.html", "svg": "t.svg", "pcapng": "t.pcapng", "plot": "t.png"}
    files = {kind: tmp_path / name for kind, name in names.items()}
    write_pages(lab, packets, packets[:1], **files)
    assert "<svg" in files["svg"].read_text()
    assert "trace" in files["html"].read_text()
    assert files["plot"].stat().st_size > 10_000
    listed = subprocess.run(
        ["tshark", "-r", str(files["pcapng"]), "-T", "fields", "-e", "frame.interface_name"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    expected = [
        f"{hop.namespace}/{hop.device} {hop.hook}".replace("/ ", " ")
        for hop in packets[0].taken if hop.before
    ]  # fmt: skip
    assert listed == expected


def test_what_watching_costs_is_measured_where_packets_get_through(lab):
    trace = lab.follow("client", "server").packets[0]
    cost_us = cost_of_a_sight_us(lab, trace)
    assert cost_us is not None
    assert 0.0 <= cost_us < 1000.0
    nowhere = replace(trace, packet=replace(trace.packet, receiver=""))
    assert cost_of_a_sight_us(lab, nowhere) is None
