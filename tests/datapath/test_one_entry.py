"""Every map decides something: one entry changes, and the same packet meets another fate."""

import struct
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from lab.layouts.attach import Hook
from lab.layouts.core import CidrKey, EndpointKey, Flag, IpcacheKey, TunnelKey
from lab.layouts.flows import (
    AffinityKey,
    AffinityMatch,
    AffinityValue,
    Backend,
    BackendKey,
    ReverseNat,
    RevNatKey,
    ServiceFlag,
    ServiceKey,
    SourceRangeKey,
)
from lab.layouts.maps import MAPS
from tests.datapath.scene import (
    CLIENT,
    NEIGHBOUR,
    NODE,
    REMOTE,
    ROUTED_ELSEWHERE,
    VIP,
    WORLD,
    Scene,
    tcp,
    udp,
)
from tests.datapath.test_fragments import FIRST, LATER

TWO = [(NEIGHBOUR, 8080), (REMOTE, 8080)]


def fate(result):
    """Verdict, reason, and whom the packet is for now."""
    addresses = Ether(result.packet)[IP]
    return result.verdict.value, result.drop_reason, addresses.src, addresses.dst


def send(packet, hook=Hook.FROM_CONTAINER):
    return lambda scene: scene.run(hook, packet)


def answer(packet):
    return lambda scene: scene.deliver(packet)


def delete(name, key):
    return lambda scene: scene.map(name).map.delete(key.pack() if hasattr(key, "pack") else key)


def empty(name):
    return lambda scene: scene.map(name).map.clear()


def put(name, key, value):
    return lambda scene: scene.map(name).update(key, value)


def for_new_flows(change):
    """The flow of the first packet is forgotten too: running flows keep what they have."""

    def forget_and_change(scene):
        for name in ("cilium_ct4_global", "cilium_snat_v4_external"):
            scene.map(name).map.clear()
        change(scene)

    return forget_and_change


def slot(number):
    return struct.pack("<I", number)


def service(**options):
    backends = options.pop("backends", [(REMOTE, 8080)])
    return lambda scene: scene.service(VIP, 80, backends, 1, **options)


def opened(packet):
    """An allowed flow was opened and nothing else is allowed."""

    def prepare(scene):
        scene.allow(258, egress=True)
        scene.run(Hook.FROM_CONTAINER, packet)

    return prepare


def masqueraded(scene):
    left = Ether(scene.run(Hook.TO_NETDEV, tcp(CLIENT, WORLD, 2000, 80)).packet)[IP]
    scene.port = left.sport


def come_back(scene):
    return scene.run(Hook.FROM_NETDEV, tcp(WORLD, NODE, 80, scene.port, "SA"))


def preferred(scene):
    """A client with affinity, whose flow went to one of two backends."""
    scene.map("cilium_lb4_affinity").map.clear()
    service(backends=TWO, flags=ServiceFlag.AFFINITY, affinity_s=600)(scene)
    prefer(REMOTE)(scene)


def prefer(address):
    key = AffinityKey(client_id=int.from_bytes(IPv4Address(CLIENT).packed, "little"), rev_nat_id=1)

    def write(scene):
        value = AffinityValue(last_used=0xFFFFFFFF, backend_id=scene.backend_id(address, 8080))
        scene.map("cilium_lb4_affinity").update(key, value)

    return write


def unmatch_remote(scene):
    """REMOTE is no backend of the service any more, as far as affinity is concerned."""
    service(backends=[(NEIGHBOUR, 8080)], flags=ServiceFlag.AFFINITY, affinity_s=600)(scene)
    key = AffinityMatch(backend_id=scene.backend_id(REMOTE, 8080), rev_nat_id=1)
    scene.map("cilium_lb_affinity_match").delete(key)


def move_backend(scene):
    identifier = scene.backend_id(REMOTE, 8080)
    value = Backend(address=IPv4Address(NEIGHBOUR), port=8080, proto=6)
    scene.map("cilium_lb4_backends").update(BackendKey(id=identifier), value)


def translated(scene):
    service()(scene)
    scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, VIP, 2000, 80))


def ranged(scene):
    service(flags=ServiceFlag.SOURCE_RANGE)(scene)
    scene.map("cilium_lb4_source_range").map.clear()


RANGE = SourceRangeKey(prefixlen=56, rev_nat_id=1, addr=IPv4Address("10.0.1.0"))
OTHER_SERVICE = ReverseNat(address=IPv4Address("10.96.0.9"), port=80)


def nothing(scene):
    """No preparation."""


POLICY, MASQUERADE = {"enable_policy": True}, {"enable_masquerade": True}
PREFILTER = {"enable_prefilter": True}

# map: (configuration, what was before, the change, the packet, its fate before, and after)
CASES = {
    "cilium_lxc": (
        {},
        nothing,
        delete("cilium_lxc", EndpointKey(ip4=IPv4Address(NEIGHBOUR))),
        send(tcp(CLIENT, NEIGHBOUR)),
        ("redirect", None, CLIENT, NEIGHBOUR),
        ("pass", None, CLIENT, NEIGHBOUR),
    ),
    "cilium_ipcache": (
        {},
        nothing,
        delete("cilium_ipcache", IpcacheKey.of(IPv4Network(REMOTE))),
        send(tcp(CLIENT, REMOTE)),
        ("redirect", None, CLIENT, REMOTE),
        ("pass", None, CLIENT, REMOTE),
    ),
    "cilium_tunnel_map": (
        {},
        nothing,
        delete("cilium_tunnel_map", TunnelKey(ip4=IPv4Address("10.0.3.0"))),
        send(tcp(CLIENT, ROUTED_ELSEWHERE)),
        ("redirect", None, CLIENT, ROUTED_ELSEWHERE),
        ("pass", None, CLIENT, ROUTED_ELSEWHERE),
    ),
    "cilium_policy": (
        POLICY,
        lambda scene: scene.map("cilium_policy").map.clear(),
        lambda scene: scene.allow(258, egress=True),
        send(tcp(CLIENT, REMOTE)),
        ("drop", "DROP_POLICY", CLIENT, REMOTE),
        ("redirect", None, CLIENT, REMOTE),
    ),
    "cilium_calls": (
        {},
        nothing,
        delete("cilium_calls", slot(7)),
        send(tcp(CLIENT, REMOTE)),
        ("redirect", None, CLIENT, REMOTE),
        ("drop", "DROP_MISSED_TAIL_CALL", CLIENT, REMOTE),
    ),
    "cilium_call_policy": (
        {},
        nothing,
        delete("cilium_call_policy", slot(267)),
        send(tcp(CLIENT, NEIGHBOUR)),
        ("redirect", None, CLIENT, NEIGHBOUR),
        ("drop", "DROP_EP_NOT_READY", CLIENT, NEIGHBOUR),
    ),
    "cilium_ct4_global": (
        POLICY,
        opened(tcp(CLIENT, REMOTE, 2000, 80)),
        empty("cilium_ct4_global"),
        answer(tcp(REMOTE, CLIENT, 80, 2000, "SA")),
        ("redirect", None, REMOTE, CLIENT),
        ("drop", "DROP_POLICY", REMOTE, CLIENT),
    ),
    "cilium_ct_any4_global": (
        POLICY,
        opened(udp(CLIENT, REMOTE, 2000, 53)),
        empty("cilium_ct_any4_global"),
        answer(udp(REMOTE, CLIENT, 53, 2000)),
        ("redirect", None, REMOTE, CLIENT),
        ("drop", "DROP_POLICY", REMOTE, CLIENT),
    ),
    "cilium_snat_v4_external": (
        MASQUERADE,
        masqueraded,
        empty("cilium_snat_v4_external"),
        come_back,
        ("pass", None, WORLD, CLIENT),
        ("pass", None, WORLD, NODE),
    ),
    "cilium_ipv4_frag_datagrams": (
        {},
        lambda scene: scene.run(Hook.FROM_CONTAINER, FIRST),
        empty("cilium_ipv4_frag_datagrams"),
        send(LATER[0]),
        ("redirect", None, CLIENT, REMOTE),
        ("drop", "DROP_FRAG_NOT_FOUND", CLIENT, REMOTE),
    ),
    "cilium_lb4_services_v2": (
        {},
        service(),
        delete("cilium_lb4_services_v2", ServiceKey(address=IPv4Address(VIP), dport=80, proto=6)),
        send(tcp(CLIENT, VIP)),
        ("redirect", None, CLIENT, REMOTE),
        ("pass", None, CLIENT, VIP),
    ),
    "cilium_lb4_backends": (
        {},
        service(),
        move_backend,
        send(tcp(CLIENT, VIP)),
        ("redirect", None, CLIENT, REMOTE),
        ("redirect", None, CLIENT, NEIGHBOUR),
    ),
    "cilium_lb4_reverse_nat": (
        {},
        translated,
        put("cilium_lb4_reverse_nat", RevNatKey(index=1), OTHER_SERVICE),
        answer(tcp(REMOTE, CLIENT, 8080, 2000, "SA")),
        ("redirect", None, VIP, CLIENT),
        ("redirect", None, "10.96.0.9", CLIENT),
    ),
    "cilium_lb4_affinity": (
        {},
        preferred,
        for_new_flows(prefer(NEIGHBOUR)),
        send(tcp(CLIENT, VIP, 3000)),
        ("redirect", None, CLIENT, REMOTE),
        ("redirect", None, CLIENT, NEIGHBOUR),
    ),
    "cilium_lb_affinity_match": (
        {},
        preferred,
        for_new_flows(unmatch_remote),
        send(tcp(CLIENT, VIP, 3000)),
        ("redirect", None, CLIENT, REMOTE),
        ("redirect", None, CLIENT, NEIGHBOUR),
    ),
    "cilium_lb4_source_range": (
        {},
        ranged,
        put("cilium_lb4_source_range", RANGE, Flag()),
        send(tcp(CLIENT, VIP)),
        ("drop", "DROP_NOT_IN_SRC_RANGE", CLIENT, VIP),
        ("redirect", None, CLIENT, REMOTE),
    ),
    "cilium_ipmasq_v4": (
        MASQUERADE,
        empty("cilium_ipmasq_v4"),
        for_new_flows(put("cilium_ipmasq_v4", CidrKey.of(IPv4Network("203.0.113.0/24")), Flag())),
        send(tcp(CLIENT, WORLD), Hook.TO_NETDEV),
        ("pass", None, NODE, WORLD),
        ("pass", None, CLIENT, WORLD),
    ),
    "cilium_cidr_v4_dyn": (
        PREFILTER,
        empty("cilium_cidr_v4_dyn"),
        put("cilium_cidr_v4_dyn", CidrKey.of(IPv4Network("203.0.113.0/24")), Flag()),
        send(tcp(WORLD, NODE), Hook.XDP),
        ("pass", None, WORLD, NODE),
        ("drop", "DROP_POLICY_DENY", WORLD, NODE),
    ),
    "cilium_cidr_v4_fix": (
        PREFILTER,
        empty("cilium_cidr_v4_fix"),
        put("cilium_cidr_v4_fix", CidrKey.of(IPv4Network(WORLD)), Flag()),
        send(tcp(WORLD, NODE), Hook.XDP),
        ("pass", None, WORLD, NODE),
        ("drop", "DROP_POLICY_DENY", WORLD, NODE),
    ),
}


@pytest.fixture
def fresh():
    """Makes a scene of this test's own: its maps are changed for good."""
    made = []

    def scene(**config):
        made.append(Scene(**config))
        return made[-1]

    yield scene
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("config", "prepare", "change", "packet", "before", "after"), CASES.values(), ids=CASES.keys()
)
def test_one_entry_changes_a_packets_fate(fresh, config, prepare, change, packet, before, after):
    scene = fresh(**config)
    prepare(scene)
    first = fate(packet(scene))
    change(scene)
    assert (first, fate(packet(scene))) == (before, after)


# why a map is in no row above
ELSEWHERE = {
    "cilium_lb4_maglev": "test_nodeport.py: needs a node's routes",
    "cilium_nodeport_neigh4": "test_nodeport.py: needs a node's routes",
    "cilium_runtime_config": "test_mind.py: decides what is told, not where packets go",
    "cilium_metrics": "written only: test_harness.py reads what was counted",
    "cilium_events": "written only: test_harness.py reads what was told",
    "cilium_signals": "written only: test_signals.py lets a table fill up",
    "cilium_mind": "written only: test_mind.py",
    "cilium_tail_call_buffer4": "scratch space between two tail calls",
}


def test_every_map_in_use_has_its_row():
    used = {layout.name for layout in MAPS if not layout.unused}
    assert used == CASES.keys() | ELSEWHERE.keys()
