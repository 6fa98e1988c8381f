"""The printed plan is the truth: run as a shell script it makes the state the lab makes.

The script runs in namespaces of its own, with ``ip``, ``tc`` and ``bpftool`` only; both states
are read with the same tools.
"""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from lab import Lab, Link, Node, Options, Pod, Topology
from lab.datapath.render import commands
from lab.plan import plan
from lab.runtime.start import compiled_objects

pytestmark = pytest.mark.live

TOPOLOGIES = {
    "vxlan": Topology(
        name="truth",
        nodes=(Node("alpha"), Node("beta")),
        pods=(Pod("client", node="alpha"), Pod("server", node="beta", labels={"app": "server"})),
        links=(Link("alpha", "beta", rate_mbit=100),),
    ),
    "native routing and a route per pod": Topology(
        name="truth",
        nodes=(Node("alpha"), Node("beta")),
        pods=(Pod("client", node="alpha"),),
        options=Options(
            routing="native", endpoint_routes=True, masquerade="iptables", prefilter=True
        ),
    ),
}
PLACES = ("underlay", "world", "alpha", "beta", "client")
READ = (
    ["ip", "-j", "-d", "link"],
    ["ip", "-j", "addr"],
    ["ip", "-j", "route", "show", "table", "all"],
    ["ip", "-j", "rule"],
    ["tc", "-j", "qdisc"],
)
VOLATILE = {
    "link_netnsid", "link_netns", "ifi", "stats64", "gc_timer", "hello_timer", "tcn_timer",
    "topology_change_timer", "forward_delay", "preferred_lft", "valid_life_time",
    "id", "inet6_addr_gen_mode", "flags", "operstate", "state", "bridge_id", "root_id",
    "forward_delay_timer", "hold_timer", "message_age_timer", "load_time", "btf_id",
}  # fmt: skip


def steady(value):
    """Drop what differs between two runs of anything: timers, ids, states under way."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [steady(item) for item in value]
    # The shaper's burst and latency are kept in clock ticks: two tools round differently.
    return round(value, -2) if isinstance(value, int) and value > 20000 else value


def read_tool(run):
    state = {}
    for place in PLACES:
        for argv in READ:
            found = json.loads(run(place, argv) or "[]")
            state[place, " ".join(argv)] = steady(found)
    return state


def read_programs(run):
    """Which program (by its instructions' hash) sits on which hook of each node's devices."""
    found = {}
    for node in ("alpha", "beta"):
        links = json.loads(run(node, ["ip", "-j", "link"]))
        for device in [link["ifname"] for link in links]:
            for side in ("ingress", "egress"):
                text = run(node, ["tc", "filter", "show", "dev", device, side])
                tags = [word for before, word in pairwise(text.split()) if before == "tag"]
                found[node, device, side] = tags
    return found


def read_maps(run, pins):
    maps = {}
    for node in ("alpha", "beta"):
        folder = pins(node)
        for name in ("cilium_lxc", "cilium_ipcache", "cilium_tunnel_map"):
            dump = json.loads(
                run(node, ["bpftool", "-j", "map", "dump", "pinned", f"{folder}/{name}"])
            )
            maps[node, name] = sorted((item["key"], item["value"]) for item in dump)
        for name in run(node, ["ls", folder]).split():
            shown = json.loads(
                run(node, ["bpftool", "-j", "map", "show", "pinned", f"{folder}/{name}"])
            )
            maps[node, name, "kind"] = [
                shown[key] for key in ("type", "bytes_key", "bytes_value", "max_entries", "flags")
            ]
            if shown["type"] == "prog_array":
                dump = json.loads(
                    run(node, ["bpftool", "-j", "map", "dump", "pinned", f"{folder}/{name}"])
                )
                maps[node, name] = sorted(item["key"] for item in dump)
    return maps


@pytest.fixture(params=TOPOLOGIES.values(), ids=TOPOLOGIES.keys())
def topology(request):
    return request.param


@pytest.fixture
def places(topology, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PLACES", PLACES[: 4 + len(topology.pods)])


@pytest.fixture
def scripted(topology, tmp_path, places):
    """The plan as a script in fresh namespaces; yields a function that runs a command there."""
    paths = {name: Path(path) for name, path in compiled_objects(topology).items()}
    lines = [line for step in plan(topology) for line in commands(step, paths)]
    lab = tmp_path / "lab"
    root = Path(__file__).resolve().parents[2]
    lab.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -m lab "$@"\n')
    lab.chmod(0o755)
    script = tmp_path / "plan.sh"
    script.write_text(
        "set -e\nmount -t tmpfs tmpfs /run\n" + "\n".join(lines) + "\necho ready\nread done\n"
    )
    process = subprocess.Popen(
        [
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            str(script),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    said = process.stdout.readline()
    assert said == "ready\n", process.stderr.read()
    child = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()[0]

    def run(place, argv):
        inside = ["nsenter", "-t", child, "-m", "-p", "nsenter", f"--net=/run/netns/{place}", *argv]
        return subprocess.run(inside, capture_output=True, text=True).stdout

    yield run
    process.communicate("\n")


def test_the_printed_plan_makes_the_state_the_lab_makes(topology, scripted):
    with Lab(topology) as lab:

        def run(place, argv):
            return lab.place(place).run(argv).stdout

        theirs, ours = read_tool(scripted), read_tool(run)
        assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]} == {}
        assert read_programs(run) == read_programs(scripted)
        ours = read_maps(run, lambda node: "/sys/fs/bpf/tc/globals")
        theirs = read_maps(scripted, lambda node: f"/run/nodes/{node}/bpf/tc/globals")
        assert ours == theirs
        assert any(tags for tags in read_programs(run).values())
