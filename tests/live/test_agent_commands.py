"""The agent's commands on a lab that is up, their JSON beside what other tools read."""

import json
import socket
from ipaddress import IPv4Address

import pytest

from lab import Lab, Service, ServicePort
from lab.agent.store import PATH as STATE
from lab.cli.root import run
from lab.plan.steps import AGENT_SOCKET
from lab.runtime.messages import receive, send
from lab.waiting import eventually
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


def ended_by_itself(lab):
    """Kill the agent behind the keeper's back; wait until there is another one."""
    before = lab.agent.life().restarts
    lab.node("alpha").run(["kill", "-SEGV", str(lab.agent.status().pid)], check=True)
    lab.agent.close()
    eventually(lambda: lab.agent.life().restarts > before, within_s=20)
    return lab.agent.status()


def agent_in_list(capsys):
    """What ``lab ls`` says of the agent of this lab."""
    capsys.readouterr()
    assert run(["ls", "-o", "json"]) == 0
    return {row["name"]: row["agent"] for row in json.loads(capsys.readouterr().out)}["commands"]


def test_labs_are_listed_with_their_agents(lab, capsys):
    assert agent_in_list(capsys) == "up"
    lab.agent.kill()
    assert agent_in_list(capsys) == "off"
    lab.agent.start()
    ended_by_itself(lab)
    assert agent_in_list(capsys).startswith("restarted")


def test_an_agent_that_ends_by_itself_is_followed_by_another(lab, lab_command):
    started = lab.agent.status().started
    lab.apply(Service(name="web", ports=(ServicePort(80),), backends=("server",)))
    address = lab.service("web").address
    assert ended_by_itself(lab).started == started + 1
    assert lab.service("web").address == address
    status = lab_command("agent", "status")[1]
    assert "times; the last that ended by itself: killed by SIGSEGV" in status
    assert "times: killed by SIGSEGV" in lab_command("node", "list")[1]


def test_an_agent_that_cannot_start_is_tried_again_and_says_why(lab, lab_command):
    state = lab.keeper.root / str(STATE).lstrip("/")
    kept = state.read_text()
    state.write_text("not what it was")
    lab.agent.restart()
    eventually(lambda: "JSONDecodeError" in lab.agent.life().ended, within_s=20)
    assert lab.pod("client").ping(lab.pod("server")).ok
    state.write_text(kept)
    lab.agent.start()
    assert lab.agent.status().endpoints == 6
    assert "JSONDecodeError" in lab_command("agent", "status")[1]


DEFECTS = {
    "a request without what it needs": {"op": "regenerate"},
    "one that changes everything, half of it nonsense": {"op": "apply", "items": [{"kind": 1}]},
    "no request at all": ["what?"],
}


@pytest.mark.parametrize("request_", DEFECTS.values(), ids=DEFECTS.keys())
def test_a_defect_met_by_one_request_is_its_answer_and_ends_nothing(lab, request_):
    before = lab.agent.status()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(lab.keeper.root) + AGENT_SOCKET)
        send(client, request_)
        answer, _ = receive(client)
    assert (answer["error"], "keeper.log" in answer["hint"]) == ("LabError", True)
    after = lab.agent.status()
    assert (after.pid, after.started) == (before.pid, before.started)


def test_what_is_no_message_ends_only_its_connection(lab):
    before = lab.agent.status().pid
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(lab.keeper.root) + AGENT_SOCKET)
        client.sendall(b"\0\0\0\4nope")
        assert client.recv(1) == b""
    assert lab.agent.status().pid == before


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
