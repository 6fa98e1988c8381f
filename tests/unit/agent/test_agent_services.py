"""Services -> frontends, numbers and rows."""

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lab import Backend, Service, ServicePort
from lab.agent import maglev, tables
from lab.agent.services import Realiser, on_node
from lab.agent.store import Numbers, State
from lab.errors import InputError
from lab.layouts import flows
from lab.layouts.flows import ServiceFlag
from lab.plan.inventory import inventory
from topologies.two_nodes import topology

FACTS = inventory(topology)
WEB = Service(name="web", ports=(ServicePort(80, 8080),), backends=("web", "server"))


def realise(*services, numbers=None):
    return Realiser(FACTS, numbers or Numbers()).frontends(services)


def rows(*services, node="alpha", maglev_tables=False):
    mine = on_node(realise(*services), FACTS.node(node))
    return tables.build(mine, node, maglev_tables=maglev_tables)


def masters(built):
    found = {}
    for key, value in built.rows[tables.SERVICES].items():
        row = flows.ServiceKey.unpack(key)
        if row.backend_slot == 0:
            value = flows.Service.unpack(value)
            found[str(row.address), row.dport, row.scope] = (value.count, value.all_flags)
    return found


EXTERNAL = ServiceFlag.ROUTABLE
KINDS = {
    "a ClusterIP has one frontend and cannot be reached from outside": (
        WEB,
        {("10.96.0.10", 80, 0): (2, ServiceFlag(0))},
    ),
    "a NodePort is also at the node's addresses and at any": (
        replace(WEB, kind="NodePort"),
        {
            ("10.96.0.10", 80, 0): (2, ServiceFlag(0)),
            ("172.30.0.1", 30000, 0): (2, EXTERNAL | ServiceFlag.NODEPORT),
            ("10.0.1.1", 30000, 0): (2, EXTERNAL | ServiceFlag.NODEPORT),
            ("0.0.0.0", 30000, 0): (2, EXTERNAL | ServiceFlag.NODEPORT),
        },
    ),
    "an external address is reachable": (
        replace(WEB, external_ips=("198.51.100.7",)),
        {
            ("10.96.0.10", 80, 0): (2, ServiceFlag(0)),
            ("198.51.100.7", 80, 0): (2, EXTERNAL | ServiceFlag.EXTERNAL_IP),
        },
    ),
    "affinity is a flag, its seconds are in the master row": (
        replace(WEB, affinity_s=30),
        {("10.96.0.10", 80, 0): (2, ServiceFlag.AFFINITY)},
    ),
    "internal traffic that stays on its node sees that node's backends": (
        replace(WEB, internal_local=True),
        {("10.96.0.10", 80, 0): (1, ServiceFlag.INT_LOCAL_SCOPE)},
    ),
    "no backend: a master row that counts none": (
        replace(WEB, backends=()),
        {("10.96.0.10", 80, 0): (0, ServiceFlag(0))},
    ),
    "a terminating backend gets no new flows": (
        replace(WEB, backends=("web", Backend(pod="server", terminating=True))),
        {("10.96.0.10", 80, 0): (1, ServiceFlag(0))},
    ),
    "the last backend gets new flows while it is terminating": (
        replace(WEB, backends=(Backend(pod="server", terminating=True),)),
        {("10.96.0.10", 80, 0): (1, ServiceFlag(0))},
    ),
    "but not when it serves no more": (
        replace(WEB, backends=(Backend(pod="server", ready=False, terminating=True),)),
        {("10.96.0.10", 80, 0): (0, ServiceFlag(0))},
    ),
}


@pytest.mark.parametrize(("service", "expected"), KINDS.values(), ids=KINDS.keys())
def test_master_rows_of_a_node(service, expected):
    assert masters(rows(service)) == expected


def test_traffic_from_outside_that_stays_on_its_node_has_two_scopes():
    service = replace(WEB, kind="NodePort", external_local=True)
    found = masters(rows(service))
    flags = EXTERNAL | ServiceFlag.NODEPORT | ServiceFlag.EXT_LOCAL_SCOPE | ServiceFlag.TWO_SCOPES
    assert found["172.30.0.1", 30000, 0] == (1, flags)
    assert found["172.30.0.1", 30000, 1] == (2, flags)


def test_terminating_backend_keeps_its_row_for_the_flows_it_has():
    service = replace(WEB, backends=("web", Backend(pod="server", terminating=True)))
    states = {
        str(row.address): row.flags
        for row in map(flows.Backend.unpack, rows(service).rows[tables.BACKENDS].values())
    }
    assert states == {"10.0.1.11": tables.ACTIVE, "10.0.2.10": tables.TERMINATING}


def test_no_client_comes_back_to_a_terminating_backend():
    service = replace(WEB, affinity_s=60, backends=("web", Backend(pod="server", terminating=True)))
    (frontend,) = realise(service)
    matches = rows(service).rows[tables.AFFINITY]
    (known,) = map(flows.AffinityMatch.unpack, matches)
    assert known.backend_id == frontend.backends[0].id


def test_source_ranges_belong_to_the_load_balancer_address_alone():
    service = replace(WEB, kind="LoadBalancer", source_ranges=("203.0.113.0/24",))
    built = rows(service)
    guarded = [
        key for key, (_, flags) in masters(built).items() if ServiceFlag.SOURCE_RANGE in flags
    ]
    (lpm,) = map(flows.SourceRangeKey.unpack, built.rows["cilium_lb4_source_range"])
    assert guarded == [("198.51.100.10", 80, 0)]
    assert (lpm.prefixlen, lpm.addr) == (32 + 24, IPv4Address("203.0.113.0"))


def test_selector_finds_the_pods_of_its_namespace():
    (frontend,) = realise(Service(name="s", ports=(80,), selector={"app": "server"}))
    assert [str(backend.address) for backend in frontend.backends] == ["10.0.2.10"]


def test_numbers_stay_while_other_services_come_and_go():
    numbers = Numbers()
    other = Service(name="other", ports=(81,), backends=("other",))
    before = {item.service.name: item.id for item in realise(other, WEB, numbers=numbers)}
    (after,) = realise(WEB, numbers=numbers)
    assert after.id == before["web"]
    assert len(numbers.frontends) == 1


def test_a_number_given_back_is_not_the_next_one_given():
    """A flow that slept through the change would find another service's backend under it."""
    numbers = Numbers()
    gone = {item.id for item in realise(WEB, numbers=numbers)[0].backends}
    realise(numbers=numbers)
    (following,) = realise(replace(WEB, name="b", backends=("client", "other")), numbers=numbers)
    assert gone.isdisjoint(item.id for item in following.backends)
    assert following.id == 2


def test_numbers_come_round_again():
    numbers = Numbers(last={"frontends": 0xFFFF, "backends": 0xFFFF})
    (found,) = realise(WEB, numbers=numbers)
    assert (found.id, [item.id for item in found.backends]) == (1, [1, 2])


def test_when_all_numbers_are_in_use_a_service_is_refused():
    numbers = Numbers(frontends={f"other {n}": n for n in range(1, 0x10000)})
    with pytest.raises(InputError, match="numbers of frontends: nothing is left"):
        realise(WEB, numbers=numbers)


def test_ten_thousand_services_get_different_numbers_and_addresses():
    many = [Service(name=f"s{n}", ports=(80,), backends=("web",)) for n in range(10_000)]
    found = realise(*many)
    assert len({item.id for item in found}) == len({item.address for item in found}) == 10_000


IMPOSSIBLE = {
    "no ports": ({"ports": ()}, "has no ports"),
    "a port twice": ({"ports": (80, ServicePort(80, 81))}, "is there twice"),
    "port 0": ({"ports": (0,)}, "is impossible"),
    "a node port of a ClusterIP": ({"ports": (ServicePort(80, node_port=30080),)}, "node port"),
    "a node port below 30000": (
        {"kind": "NodePort", "ports": (ServicePort(80, node_port=8080),)},
        "node port 8080",
    ),
    "an unknown kind": ({"kind": "ClusterIp"}, "kind 'ClusterIp' is unknown"),
    "a backend pod that does not exist": ({"backends": ("sever",)}, "'sever' does not exist"),
    "a backend outside the lab": ({"backends": (Backend(address="8.8.8.8"),)}, "no address of"),
    "an external IP between the nodes' pods": ({"external_ips": ("10.0.3.7",)}, "pods' network"),
    "an external IP among the pods": (
        {"external_ips": ("10.0.1.77",)},
        "in the pods' network, 10.0.0.0/22",
    ),
    "a load balancer's IP among the pods": (
        {"kind": "LoadBalancer", "load_balancer_ip": "10.0.2.77"},
        "in the pods' network, 10.0.0.0/22",
    ),
    "a cluster IP outside its network": ({"cluster_ip": "10.0.1.10"}, "outside 10.96.0.0/16"),
    "a source range that is no network": ({"source_ranges": ("1.2.3.4/33",)}, "no IPv4 network"),
}


@pytest.mark.parametrize(("change", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_service_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        realise(replace(WEB, **change))


def test_two_services_on_one_address_are_refused():
    with pytest.raises(InputError, match="share 10.96.0.99:80"):
        realise(
            replace(WEB, cluster_ip="10.96.0.99"), replace(WEB, name="b", cluster_ip="10.96.0.99")
        )


def test_state_is_the_same_after_a_restart(tmp_path):
    state = State(services={WEB.title: WEB}, numbers=Numbers({"a": 1}, {"b": 2}, {}, {"c": 30000}))
    state.save(tmp_path / "agent.json")
    assert State.load(tmp_path / "agent.json") == state
    assert State.load(tmp_path / "nothing.json") == State()


def test_maglev_shares_are_almost_equal():
    shares = Counter(maglev.table({f"b{n}": n for n in range(10)}, 1021))
    assert max(shares.values()) - min(shares.values()) <= 1


def test_maglev_moves_little_when_a_backend_goes():
    names = {f"b{n}": n for n in range(10)}
    before = maglev.table(names, 1021)
    after = maglev.table({k: n for k, n in names.items() if k != "b3"}, 1021)
    moved = sum(a != b for a, b in zip(before, after, strict=True) if a != 3)
    assert 3 not in after
    assert moved < 0.1 * 1021


def test_maglev_table_is_the_same_on_both_nodes():
    service = replace(WEB, kind="NodePort")
    one, other = (rows(service, node=n, maglev_tables=True).maglev for n in ("alpha", "beta"))
    cluster_ip = realise(service)[0].id
    assert one[cluster_ip] == other[cluster_ip]
