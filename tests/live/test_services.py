"""Services of a running lab: what clients get, and what changes under their flows."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from lab import Backend, Lab, Pod, Service, ServicePort
from lab.errors import InputError
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

WEB = Service(name="web", ports=(ServicePort(80, 8080),), backends=("web", "server"))


@pytest.fixture(scope="module")
def lab():
    with Lab(topology) as lab:
        yield lab


@pytest.fixture
def servers(lab):
    with (
        lab.pod("web").serve_tcp(8080, reply=b"web") as web,
        lab.pod("server").serve_tcp(8080, reply=b"server") as server,
        lab.pod("other").serve_tcp(8080, reply=b"other") as other,
    ):
        yield {"web": web, "server": server, "other": other}


@pytest.fixture
def applied(lab):
    """Apply services that are gone again after the test."""
    done = []

    def apply(service):
        lab.apply(service)
        if service.title not in done:
            done.append(service.title)
        return lab.service(service.title)

    yield apply
    lab.delete(*(f"service/{title}" for title in done))


def answers(place, address, port, count=16):
    found = (place.connect(address, port, payload=b"?", timeout_s=0.5) for _ in range(count))
    return Counter(answer.reply.decode() or answer.error for answer in found)


def test_new_flows_are_spread_over_all_backends(lab, servers, applied):
    service = applied(WEB)
    assert set(answers(lab.pod("client"), service.address, 80, 24)) == {"web", "server"}


def test_a_pod_reaches_itself_through_its_service(lab, servers, applied):
    service = applied(replace(WEB, backends=("web",)))
    assert answers(lab.pod("web"), service.address, 80, 4) == {"web": 4}
    assert {address for address, _ in servers["web"].report()["peers"]} == {"169.254.42.1"}


def test_without_backends_nobody_answers_and_the_drop_has_its_reason(lab, applied):
    service = applied(replace(WEB, backends=()))
    assert answers(lab.pod("client"), service.address, 80, 1) == {"timeout": 1}
    assert drops(lab, "alpha", 158) > 0


def test_affinity_keeps_a_client_with_its_backend(lab, servers, applied):
    service = applied(replace(WEB, affinity_s=60))
    assert len(answers(lab.pod("client"), service.address, 80, 24)) == 1


def test_affinity_moves_on_when_the_backend_is_gone(lab, servers, applied):
    service = applied(replace(WEB, affinity_s=60))
    (before,) = answers(lab.pod("client"), service.address, 80)
    rest = tuple(name for name in ("web", "server") if name != before)
    applied(replace(WEB, affinity_s=60, backends=rest))
    assert set(answers(lab.pod("client"), service.address, 80)) == set(rest)


def test_source_ranges_let_in_whom_they_name(lab, servers, applied):
    ranges = ("203.0.113.0/24",)
    service = applied(replace(WEB, kind="LoadBalancer", source_ranges=ranges))
    (address,) = [item.address for item in service.frontends if item.kind == "LoadBalancer"]
    # the world's address on the wire, 172.30.0.254, is outside the range
    assert answers(lab.world, address, 80, 1) == {"timeout": 1}
    assert drops(lab, "alpha", 177) > 0
    applied(replace(WEB, kind="LoadBalancer", source_ranges=("172.30.0.0/24",)))
    assert "timeout" not in answers(lab.world, address, 80, 4)


def test_a_cluster_ip_is_not_reached_from_outside(lab, servers, applied):
    service = applied(WEB)
    lab.world.run(["ip", "route", "replace", "10.96.0.0/16", "via", "172.30.0.1"], check=True)
    assert answers(lab.world, service.address, 80, 1) == {"timeout": 1}
    assert drops(lab, "alpha", 174) > 0


def test_external_traffic_that_stays_local_is_not_sent_on(lab, servers, applied):
    port = ServicePort(80, 8080, node_port=30081)
    local = replace(WEB, kind="NodePort", ports=(port,), backends=("web",), external_local=True)
    applied(local)
    assert answers(lab.world, lab.node("alpha").address, 30081, 4) == {"web": 4}
    assert answers(lab.world, lab.node("beta").address, 30081, 1) == {"timeout": 1}


def test_terminating_backend_keeps_its_flow_and_gets_no_new_one(lab, servers, applied):
    service = applied(replace(WEB, backends=("web",)))
    client = lab.pod("client")
    with client.session(service.address, 80) as session:
        assert session.echo(b"one") == b"web"
        applied(replace(WEB, backends=(Backend(pod="web", terminating=True), "server")))
        assert session.echo(b"two") == b"web"
        assert answers(client, service.address, 80, 8) == {"server": 8}


def test_the_last_backend_serves_while_it_is_terminating(lab, servers, applied):
    service = applied(replace(WEB, backends=(Backend(pod="web", terminating=True),)))
    assert answers(lab.pod("client"), service.address, 80, 2) == {"web": 2}
    applied(replace(WEB, backends=(Backend(pod="web", terminating=True, ready=False),)))
    assert answers(lab.pod("client"), service.address, 80, 1) == {"timeout": 1}


def test_affinity_leads_to_no_terminating_backend(lab, servers, applied):
    """Nor does the flow that the client still has there make it forget the other one."""
    sticky = replace(WEB, affinity_s=60, backends=("web",))
    service = applied(sticky)
    client = lab.pod("client")
    with client.session(service.address, 80) as session:
        assert session.echo(b"one") == b"web"
        leaving = Backend(pod="web", terminating=True)
        applied(replace(sticky, backends=(leaving, "server", "other")))
        (chosen,) = answers(client, service.address, 80, 1)
        for _ in range(6):
            assert session.echo(b"two") == b"web"
            assert set(answers(client, service.address, 80, 2)) == {chosen} != {"web"}


def test_a_change_of_backends_leaves_running_flows_alone(lab, servers, applied):
    service = applied(replace(WEB, backends=("web", "server", "other")))
    client = lab.pod("client")
    with client.session(service.address, 80) as session:
        mine = session.echo(b"one").decode()
        applied(replace(WEB, backends=(mine,)))
        applied(replace(WEB, backends=("other", mine)))
        assert session.echo(b"two").decode() == mine


def test_udp_flows_keep_their_backend(lab, applied):
    service = applied(
        Service(name="dns", ports=(ServicePort(53, 5353, "UDP"),), backends=("web", "server"))
    )
    client = lab.pod("client")
    with (
        lab.pod("web").serve_udp(5353, reply=b"web"),
        lab.pod("server").serve_udp(5353, reply=b"server"),
    ):
        got = {client.send_udp(service.address, 53, source_port=4242).reply for _ in range(8)}
        assert len(got) == 1
        others = {client.send_udp(service.address, 53).reply for _ in range(16)}
        assert others == {b"web", b"server"}


def test_selector_follows_pods_that_come_and_go():
    from lab import Pod

    with Lab(topology) as lab:
        lab.apply(Service(name="app", ports=(8080,), selector={"app": "late"}))
        address = lab.service("app").address
        assert answers(lab.pod("client"), address, 8080, 1) == {"timeout": 1}
        lab.add_pod(Pod("late", node="beta", labels={"app": "late"}))
        with lab.pod("late").serve_tcp(8080, reply=b"late"):
            assert answers(lab.pod("client"), address, 8080, 2) == {"late": 2}


def test_a_refused_service_changes_nothing(lab, applied):
    applied(WEB)
    before = lab.agent.services()
    with pytest.raises(InputError, match="share 10.96"):
        lab.apply(replace(WEB, name="twin", cluster_ip=lab.service("web").address))
    with pytest.raises(InputError, match="there is no 'service/default/wbe'"):
        lab.delete("service/default/wbe")
    assert lab.agent.services() == before


def test_more_rows_than_a_map_holds_are_refused_before_any_is_written(lab):
    both = ("web", "server")
    many = [Service(name=f"s{n}", ports=(80,), backends=both) for n in range(22_000)]
    before = tables(lab)
    with pytest.raises(InputError, match="holds 65536 rows, 66000 are needed"):
        lab.apply(*many)
    assert tables(lab) == before
    assert lab.agent.services() == ()


def test_a_pod_is_refused_whose_services_would_need_more_rows_than_a_map_holds(lab, applied):
    # a row for each port, and one more for each port and backend
    applied(Service(name="ports", ports=tuple(range(1, 33_001)), selector={"app": "late"}))
    before = tables(lab)
    with pytest.raises(InputError, match="holds 65536 rows, 66000 are needed"):
        lab.add_pod(Pod("late", node="beta", labels={"app": "late"}))
    assert tables(lab) == before
    assert "late" not in {pod.name for pod in lab.topology.pods}


def test_the_next_agent_finds_the_tables_as_they_were(lab, servers, applied):
    service = applied(replace(WEB, kind="NodePort"))
    before = tables(lab)
    lab.agent.restart()
    assert lab.agent.services()[0] == service
    assert tables(lab) == before


def test_what_is_not_there_is_not_deleted_and_the_nearest_is_named(lab, applied):
    applied(WEB)
    with pytest.raises(InputError) as refused:
        lab.delete("service/web")
    assert "'service/default/web'" in refused.value.hint


def test_deleting_leaves_no_row(lab):
    lab.apply(replace(WEB, kind="LoadBalancer", affinity_s=10, source_ranges=("10.0.0.0/8",)))
    assert any(tables(lab).values())
    lab.delete(WEB)
    assert not any(tables(lab).values())


NAMES = (
    "cilium_lb4_services_v2", "cilium_lb4_backends", "cilium_lb4_reverse_nat",
    "cilium_lb4_source_range", "cilium_lb_affinity_match",
)  # fmt: skip


def tables(lab):
    """What bpftool reads from the service maps."""
    return {
        (node, name): sorted(re.findall(r'"key".*?(?="key"|\Z)', dump(lab, node, name), re.S))
        for node in ("alpha", "beta")
        for name in NAMES
    }


def dump(lab, node, name):
    pin = f"/sys/fs/bpf/tc/globals/{name}"
    return lab.node(node).run(["bpftool", "map", "dump", "pinned", pin], check=True).stdout


def drops(lab, node, reason):
    """Packets a node dropped for a reason, from the metrics map as bpftool prints it."""
    text = dump(lab, node, "cilium_metrics")
    total = 0
    for entry in text.split('"key"')[1:]:
        if int(re.match(r": (\d+)", entry)[1]) >> 2 == reason:
            total += sum(map(int, re.findall(r'"count": (\d+)', entry)))
    return total
