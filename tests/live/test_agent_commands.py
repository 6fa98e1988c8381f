"""The agent's commands on a lab that is up, their JSON beside what other tools read."""

import json
from ipaddress import IPv4Address

import pytest

from lab import Lab
from lab.cli.root import run
from topologies.two_nodes import topology

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def lab():
    with Lab(topology, name="commands") as lab:
        yield lab


@pytest.fixture
def lab_command(lab, capsys):
    """Run one command line; return exit code and what it printed."""

    def call(*words):
        code = run([*words, "--lab", "commands"])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_endpoint_list_shows_pods_as_ip_shows_their_devices(lab, lab_command):
    code, text = lab_command("endpoint", "list", "-o", "json")
    devices = {(item["node"], item["device"], item["ifindex"]) for item in json.loads(text)}
    links = {
        (node, link["ifname"], link["ifindex"])
        for node in ("alpha", "beta")
        for link in json.loads(lab.node(node).run(["ip", "-j", "link"]).stdout)
    }
    assert code == 0
    assert len(devices) == 6
    assert devices <= links


def test_endpoint_get_log_and_regenerate(lab_command):
    code, text = lab_command("endpoint", "regenerate", "client")
    assert (code, text) == (0, "endpoint 266 on alpha: revision 1\n")
    assert "asked for on the command line" in lab_command("endpoint", "log", "266")[1]
    found = json.loads(lab_command("endpoint", "get", "client")[1])
    assert found["endpoint"]["id"] == 266
    assert "ep_config.h" in found["files"]


def test_service_add_list_delete_beside_bpftool(lab, lab_command):
    code, text = lab_command("service", "add", "web", "-p", "80:8080", "-b", "web", "-b", "server")
    assert (code, text) == (0, "default/web is at 10.96.0.10\n")
    (service,) = json.loads(lab_command("service", "list", "-o", "json")[1])
    told = {
        (frontend["address"], frontend["port"], frontend["id"], len(frontend["backends"]))
        for frontend in service["frontends"]
    }
    assert told == set(masters(lab, "alpha")) == set(masters(lab, "beta"))
    assert lab_command("service", "delete", "web") == (0, "default/web is deleted\n")
    assert masters(lab, "alpha") == []


def masters(lab, node):
    """Address, port, rev_nat_index and backends of each service, from bpftool's own decoding."""
    argv = ["bpftool", "-j", "map", "dump", "pinned"]
    pin = "/sys/fs/bpf/tc/globals/cilium_lb4_services_v2"
    rows = json.loads(lab.node(node).run([*argv, pin], check=True).stdout)
    found = []
    for row in rows:
        key, value = row["formatted"]["key"], row["formatted"]["value"]
        if key["backend_slot"] == 0:
            address = IPv4Address(key["address"].to_bytes(4, "little"))
            port = int.from_bytes(key["dport"].to_bytes(2, "little"), "big")
            number = int.from_bytes(value["rev_nat_index"].to_bytes(2, "little"), "big")
            found.append((str(address), port, number, value["count"]))
    return found


def test_identity_list_numbers_the_pods(lab, lab_command):
    found = json.loads(lab_command("identity", "list", "-o", "json")[1])
    numbers = {pod: item["id"] for item in found for pod in item["pods"]}
    assert numbers == {f"default/{pod.name}": pod.identity for pod in lab.facts.pods}
    assert {1: "reserved:host=", 2: "reserved:world="}.items() <= {
        item["id"]: item["labels"][0] for item in found
    }.items()


def test_node_config_prints_assignments(lab_command):
    code, text = lab_command("node", "config", "-n", "beta")
    assert code == 0
    assert any(line.split()[0] == "IP4_HOST=10.0.2.1" for line in text.splitlines())


def test_agent_is_killed_and_started(lab_command):
    assert lab_command("agent", "kill")[0] == 0
    assert lab_command("agent", "status")[1].startswith("no agent is running")
    code, text = lab_command("endpoint", "list")
    assert code == 1
    assert "the datapath goes on without it" in text
    assert lab_command("agent", "start")[1].startswith("agent number 2")
    assert lab_command("agent", "collect")[0] == 0


BAD = {
    "an unknown endpoint": (("endpoint", "get", "clinet"), "did you mean 'client'?"),
    "a port that is none": (("service", "add", "x", "-p", "http", "-b", "web"), "not understood"),
    "an unknown backend": (("service", "add", "x", "-p", "80", "-b", "wbe"), "did you mean 'web'?"),
    "an unknown identity": (("identity", "get", "99"), "there is no identity 99"),
    "a service that is not there": (("service", "delete", "nope"), "there is no"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD.keys())
def test_wrong_input_is_refused_with_a_hint(lab_command, words, said):
    code, text = lab_command(*words)
    assert code == 2
    assert said in text
