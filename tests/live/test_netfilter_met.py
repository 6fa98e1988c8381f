"""Rules, connections and routes beside the hops: compared with what nft, conntrack and ip say."""

import json
import re

import pytest

from lab.cli.root import run
from lab.observe.recording import Shot
from lab.observe.why import why
from lab.report.ladder import ladder_text
from lab.trace import Trace
from lab.waiting import eventually
from tests.live.following import acquainted
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

SERVER = """
table ip t {
  chain sub { udp dport 5000 counter accept; udp dport 5002 counter drop; }
  chain c {
    type filter hook input priority 0; policy drop;
    ct state new counter; jump sub; tcp dport 5000 counter accept;
  }
}
"""
NODE = """
table ip b { chain c { type filter hook input priority 0; udp dport 8472 counter accept; }; }
table netdev n { chain i { type filter hook ingress device "eth0" priority 0; counter; }; }
"""


@pytest.fixture(scope="module")
def lab():
    with acquainted(topology) as lab:
        lab.pod("server").run(["nft", "-f", "-"], stdin=SERVER, check=True)
        lab.node("beta").run(["nft", "-f", "-"], stdin=NODE, check=True)
        words = ["iptables-nft", "-A", "OUTPUT", "-p", "udp", "--dport", "5000", "-j", "ACCEPT"]
        lab.pod("client").run(words, check=True)
        yield lab


def rules(trace, namespace, hook):
    return [
        met for hop in trace.at(namespace=namespace) if hop.hook == hook
        for met in hop.met if met.kind in ("rule", "policy")
    ]  # fmt: skip


def counters(place):
    """Packets counted by each rule, by (table, chain, handle), as nft's own JSON has them."""
    listed = json.loads(place.run(["nft", "-j", "-a", "list", "ruleset"], check=True).stdout)
    found = {}
    for item in listed["nftables"]:
        rule = item.get("rule")
        for part in rule["expr"] if rule else ():
            if "counter" in part:
                name = f"{rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
                found[name] = part["counter"]["packets"]
    return found


@pytest.fixture(scope="module")
def accepted(lab):
    """One datagram that every rule lets pass, and what nft counted meanwhile."""
    places = [lab.pod("client"), lab.node("beta"), lab.pod("server")]
    before = [counters(place) for place in places]
    recording = lab.follow("client", "server")
    moved = {
        name for place, old in zip(places, before, strict=True)
        for name, count in counters(place).items() if count > old.get(name, 0)
    }  # fmt: skip
    return recording, moved


def test_every_rule_that_counted_is_named_and_no_other(accepted):
    recording, moved = accepted
    met = {
        one.name for hop in recording.packets[0].hops for one in hop.met
        if one.kind == "rule" and "counter" in one.text
    }  # fmt: skip
    assert met == moved
    assert len(moved) == 5


def test_a_rule_is_named_with_its_text_and_verdict(accepted):
    trace = accepted[0].packets[0]
    assert [(met.text, met.verdict) for met in rules(trace, "server", "nf_input")] == [
        ("ct state new counter", "continue"),
        ("jump sub", "jump sub"),
        ("udp dport 5000 counter accept", "accept"),
    ]
    assert rules(trace, "client", "nf_output")[0].text.startswith("udp dport 5000 counter")


def test_a_chain_of_the_netdev_family_is_seen_not_implied(accepted):
    (hop,) = [hop for hop in accepted[0].packets[0].at("beta") if hop.hook == "nf_ingress"
              and hop.taken]  # fmt: skip
    assert (hop.device, hop.evidence.word, hop.object) == ("eth0", "program", "chain netdev n i")


DROPPED = {
    "by a rule in a chain that was jumped to": (
        Shot(port=5002, timeout_s=0.3), "rule", "ip t sub handle ", "udp dport 5002 counter drop",
        "nft delete rule ip t sub handle ",
    ),
    "by the policy of the chain": (
        Shot(port=5003, timeout_s=0.3), "policy", "ip t c", "policy drop", "nft add rule ip t c",
    ),
    "by the policy, without ports": (
        Shot(protocol="icmp", timeout_s=0.3), "policy", "ip t c", "policy drop", "nft add rule",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("shot", "kind", "name", "text", "change"), DROPPED.values(), ids=DROPPED.keys()
)
def test_why_names_the_rule_that_dropped_it(lab, shot, kind, name, text, change):
    answer = why(lab, "client", "server", shot)
    last = answer.hop.met[-1]
    assert (last.kind, last.text, last.verdict) == (kind, text, "drop")
    assert last.name.startswith(name)
    assert f"{last.name}: {text}" in answer.paragraph
    assert change in answer.change
    handles = lab.pod("server").run(["nft", "-a", "list", "table", "ip", "t"], check=True).stdout
    if kind == "rule":
        handle = last.name.rpartition(" ")[2]
        assert re.search(rf"udp dport 5002 counter .* drop # handle {handle}\n", handles)


def test_connections_are_those_that_conntrack_lists(lab):
    recording = lab.follow("client", "server", protocol="tcp")
    told = [
        (trace.packet.info, met)
        for trace in sorted(recording.packets, key=lambda trace: trace.taken[0].ns)
        for hop in trace.hops for met in hop.met if met.kind == "conntrack"
    ]  # fmt: skip
    assert [(info, met.verdict) for info, met in told[:3]] == [
        ("SYN", "new"), ("SYN,ACK", "update"), ("ACK", "update"),
    ]  # fmt: skip
    assert "ESTABLISHED, assured" in told[2][1].text
    (number,) = {met.name.rpartition(" ")[2] for _, met in told}
    listed = lab.pod("server").run(["conntrack", "-L", "-o", "id"], check=True).stdout
    (line,) = [line for line in listed.splitlines() if line.endswith(f"id={number}")]
    first = recording.packets[0].packet
    assert f"src={first.source} dst={first.destination} sport={first.source_port}" in line


def test_every_hook_says_what_conntrack_holds_the_packet_for(lab):
    recording = lab.follow("client", "server", protocol="tcp")
    states = {
        trace.packet.info: hop.ct_state
        for trace in reversed(recording.packets)
        for hop in trace.at(namespace="server") if hop.hook in ("nf_input", "nf_output")
    }  # fmt: skip
    assert (states["SYN"], states["SYN,ACK"], states["ACK"]) == ("new", "reply", "established")


def test_routes_are_those_that_ip_route_gives(accepted):
    trace = accepted[0].packets[0]
    told = {
        (hop.namespace, hop.hook): met.text
        for hop in trace.hops for met in hop.met if met.kind == "route"
    }  # fmt: skip
    assert told["client", "route_output"] == "unicast via 10.0.2.1 dev eth0".replace(".2.", ".1.")
    assert told["server", "ip_routing"] == "local dev eth0"


@pytest.mark.parametrize(("place", "to", "hook"), [("client", "10.0.2.10", "route_output")])
def test_the_gateway_is_the_one_that_ip_route_get_answers(lab, accepted, place, to, hook):
    said = lab.pod(place).run(["ip", "route", "get", to], check=True).stdout
    via, device = re.search(r"via (\S+) dev (\S+)", said).groups()
    (met,) = [
        met for hop in accepted[0].packets[0].at(namespace=place) if hop.hook == "route_output"
        for met in hop.met
    ]  # fmt: skip
    assert f"via {via} dev {device}" in met.text


def test_the_sockets_control_groups_stand_where_the_kernel_runs_them(accepted):
    hooks = [hop.hook for hop in accepted[0].packets[0].taken if hop.namespace == "client"]
    assert hooks.index("nf_postrouting") < hooks.index("cgroup_egress") < hooks.index("dev_queue")
    ladder = [hop.hook for hop in accepted[0].packets[0].hops if hop.namespace == "server"]
    assert ladder.index("xfrm_policy_l4") < ladder.index("cgroup_ingress")
    assert ladder.index("cgroup_ingress") < ladder.index("socket_queue")


def test_what_was_met_survives_the_file_and_is_shown(accepted):
    trace = accepted[0].packets[0]
    again = Trace.from_json(trace.to_json())
    assert [hop.met for hop in again.hops] == [hop.met for hop in trace.hops]
    assert "udp dport 5000 counter accept" in ladder_text(trace)
    assert max(map(len, ladder_text(trace).splitlines())) <= 100


def test_nothing_of_the_asking_stays(lab, accepted):
    for place in (lab.pod("server"), lab.pod("client"), lab.node("beta")):
        tables = place.run(["nft", "list", "tables"], check=True).stdout
        assert "lab_trace" not in tables
    assert lab.pod("other").run(["nft", "list", "tables"], check=True).stdout == ""


def test_a_lab_without_rules_gets_none(lab):
    with lab.trace() as seen:
        assert lab.pod("other").run(["nft", "list", "tables"], check=True).stdout == ""
        lab.pod("web").ping(lab.pod("other"))
    assert not [met for trace in seen.packets for hop in trace.at(namespace="web")
                for met in hop.met if met.kind in ("rule", "policy")]  # fmt: skip


def test_a_trace_of_another_version_says_what_to_do(accepted, tmp_path, capsys):
    text = accepted[0].packets[0].to_json().replace('"schema": 1', '"schema": 99', 1)
    (tmp_path / "old.json").write_text(text)
    assert run(["trace", "diff", str(tmp_path / "old.json"), str(tmp_path / "old.json")]) == 2
    said = capsys.readouterr().err
    assert "schema 99" in said
    assert "record the trace again" in said


POLICIES = {
    "the one for its port": (5000, "in src 10.0.1.0/24 dst 10.0.2.10/32 proto udp dport 5000",
                             "block"),
    "the general one": (5001, "in src 0.0.0.0/0 dst 0.0.0.0/0", "allow"),
}  # fmt: skip


@pytest.mark.parametrize(("port", "name", "action"), POLICIES.values(), ids=POLICIES.keys())
def test_the_ipsec_policy_that_was_found_is_named(lab, port, name, action):
    """Two policies take the packet: the kernel's own verdict says which one it found first."""
    other = lab.pod("other")
    add = ["ip", "xfrm", "policy", "add", "dir", "in"]
    narrow = "src 10.0.1.0/24 dst 10.0.2.11/32 proto udp dport 5000 action block priority 1"
    wide = "src 0.0.0.0/0 dst 0.0.0.0/0 action allow priority 5"
    name = name.replace("10.0.2.10", str(other.address))
    try:
        for words in (wide, narrow):
            other.run([*add, *words.split()], check=True)
        trace = lab.follow("client", "other", port=port).packets[0]
    finally:
        other.run(["ip", "xfrm", "policy", "flush"], check=True)
    (met,) = [met for hop in trace.at(namespace="other") for met in hop.met if met.kind == "xfrm"]
    assert (met.name, met.verdict) == (f"dir {name}", action)
    assert trace.delivered == (action == "allow")
    assert bool(trace.drops) == (action == "block")


def test_a_packet_that_waits_for_its_neighbour_says_in_which_state_it_is(lab):
    beta, address = lab.node("beta"), str(lab.node("alpha").address)
    beta.run(["ip", "neigh", "flush", "dev", "eth0"], check=True)
    trace = lab.follow("server", "client", protocol="icmp").packets[0]
    (met,) = [
        met for hop in trace.at(namespace="beta") if hop.hook == "neighbour" for met in hop.met
    ]  # fmt: skip
    assert (met.kind, met.name) == ("neighbour", f"{address} dev eth0")
    assert met.verdict in ("INCOMPLETE", "REACHABLE")
    listed = beta.run(["ip", "neigh", "show", address], check=True).stdout
    assert "REACHABLE" in listed  # the packet went out: ARP was answered


@pytest.fixture
def legacy(lab):
    """Rules that only count, in a pod of their own; undone by emptying the table."""
    other = lab.pod("other")
    rules = (
        "-A INPUT -p udp --dport 5000 -j ACCEPT",
        "-A INPUT -p udp --dport 5001 -j DROP",
        "-A INPUT -p tcp --dport 80",
    )
    for rule in rules:
        other.run(["iptables-legacy", *rule.split()], check=True)
    yield other
    other.run(["iptables-legacy", "-F"], check=True)


LEGACY = {
    "lets it pass": (5000, "accept", True),
    "drops it": (5001, "drop", False),
}


@pytest.mark.parametrize(("port", "verdict", "arrives"), LEGACY.values(), ids=LEGACY.keys())
def test_a_rule_of_iptables_legacy_is_known_by_its_counter(lab, legacy, port, verdict, arrives):
    trace = lab.follow("client", "other", port=port).packets[0]
    (met,) = rules(trace, "other", "nf_input")
    assert (met.name, met.verdict, met.source) == (
        "iptables-legacy filter INPUT", verdict, "counter",
    )  # fmt: skip
    assert f"--dport {port}" in met.text
    assert trace.delivered == arrives


NEW = """
table ip fresh { chain c { type filter hook input priority 0; udp dport 5000 counter accept; }; }
"""


def test_rules_made_while_a_recording_runs_are_told_from_then_on(lab):
    """The pod had none: to ask for their trace at once would have hooked where nobody hooks."""
    client, other = lab.pod("client"), lab.pod("other")
    client.ping(other)
    try:
        with lab.trace() as recording, other.serve_udp(5000):
            client.send_udp(other, 5000, b"before")
            other.run(["nft", "-f", "-"], stdin=NEW, check=True)
            client.send_udp(other, 5000, b"meanwhile")
            listed = ["nft", "list", "tables"]
            eventually(
                lambda: "lab_trace" in other.run(listed, check=True).stdout, what="it is traced"
            )
            client.send_udp(other, 5000, b"behind")
    finally:
        other.run(["nft", "delete", "table", "ip", "fresh"], check=True)
    seen = [t for t in recording.packets if t.packet.destination_port == 5000]
    told = ["ip fresh" in " ".join(met.name for met in rules(t, "other", "nf_input")) for t in seen]
    warned = [any("rules of other" in words for words in t.missing) for t in seen]
    assert (told[0], told[2]) == (False, True)
    # the one that came when the rules were there and perhaps not traced yet is not left in doubt
    assert told[1] or warned[1]
