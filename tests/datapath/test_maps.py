"""Every map the datapath reads decides something: change one entry, and a packet's fate changes."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from lab.datapath.build import build_objects
from lab.kernel.bpfmap import BpfMap, MapSpec, MapType
from lab.kernel.btf import read_object
from lab.layouts.attach import Hook
from lab.layouts.core import (
    CidrKey,
    EndpointKey,
    Flag,
    Index,
    IpcacheKey,
    RuntimeSlot,
    TunnelKey,
    Word,
)
from lab.layouts.flows import AffinityMatch, BackendKey, FragKey, RevNatKey, ServiceFlag, ServiceKey
from lab.layouts.maps import MAPS
from tests.datapath.scene import (
    CLIENT,
    NEIGHBOUR,
    NODE,
    OPEN,
    REMOTE,
    ROUTED_ELSEWHERE,
    VIP,
    WORLD,
    Scene,
    frame,
    tcp,
    udp,
)

NODEPORT = ServiceFlag.NODEPORT | ServiceFlag.ROUTABLE


def outcome(result):
    """What there is to see of a packet's fate."""
    packet = Ether(result.packet)
    ends = (packet[IP].src, packet[IP].dst) if IP in packet else None
    return result.verdict, result.drop_reason, ends, [event.name for event in result.events]


def clear(name):
    return lambda scene: scene.map(name).map.clear()


def delete(name, key):
    return lambda scene: scene.map(name).delete(key)


def leave(packet):
    return lambda scene: scene.run(Hook.FROM_CONTAINER, packet)


def ready_service(scene):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1)


def ready_flow(scene):
    scene.allow(0, egress=True)
    scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, REMOTE))
    scene.run(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE))


def ready_answer(scene):
    ready_service(scene)
    scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, VIP, 2000))


def ready_fragment(scene):
    scene.run(Hook.FROM_CONTAINER, udp(CLIENT, REMOTE, payload=bytes(1400), flags="MF", id=9))


def ready_affinity(scene):
    options = {"flags": ServiceFlag.AFFINITY, "affinity_s": 600}
    scene.service(VIP, 80, [(REMOTE, 8080)], 1, **options)
    scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, VIP, 2000))
    scene.backend(NEIGHBOUR, 8080)
    scene.service(VIP, 80, [(NEIGHBOUR, 8080)], 1, **options)


def ready_masquerade(scene):
    scene.run(Hook.TO_NETDEV, udp(CLIENT, WORLD))


def ready_source_range(scene):
    scene.service(VIP, 80, [(REMOTE, 8080)], 1, flags=ServiceFlag.SOURCE_RANGE)


def ready_maglev(scene):
    scene.service(NODE, 30080, [(CLIENT, 80)], 1, flags=NODEPORT)
    scene.backend(NEIGHBOUR, 80)


def set_maglev(scene):
    with BpfMap.create("maglev", MapSpec(MapType.ARRAY, 4, 1021 * 4, 1, 0)) as table:
        table.update(bytes(4), struct.pack("<I", scene.backend_id(NEIGHBOUR, 80)) * 1021)
        scene.map("cilium_lb4_maglev").map.update(struct.pack("!H", 1), struct.pack("<I", table.fd))


def allow_range(scene):
    key = struct.pack("<I", 64) + struct.pack("!HH", 1, 0) + IPv4Address(CLIENT).packed
    scene.map("cilium_lb4_source_range").map.update(key, b"\0")


def ready_neighbour(scene):
    scene.service(NODE, 30080, [(CLIENT, 80)], 1, flags=NODEPORT)
    scene.run(Hook.FROM_NETDEV, tcp(WORLD, NODE, 2000, 30080))


def nothing(_):
    """The scene is ready as it is."""


@dataclass(frozen=True)
class Case:
    """One map: what to prepare, what to change, and the packet that meets both."""

    change: Callable
    send: Callable
    ready: Callable = nothing
    config: dict = field(default_factory=dict)


MASQUERADE, POLICY = {"enable_masquerade": True}, {"enable_policy": True}
SYNACK = tcp(REMOTE, CLIENT, 80, 40000, "SA")
LATER = frame(CLIENT, REMOTE, bytes(100), proto=17, frag=176, id=9)

CASES = {
    "cilium_lxc": Case(
        delete("cilium_lxc", EndpointKey(ip4=IPv4Address(NEIGHBOUR))), leave(udp(CLIENT, NEIGHBOUR))
    ),
    "cilium_ipcache": Case(
        delete("cilium_ipcache", IpcacheKey.of(IPv4Network(REMOTE))), leave(udp(CLIENT, REMOTE))
    ),
    "cilium_tunnel_map": Case(
        delete("cilium_tunnel_map", TunnelKey(ip4=IPv4Address("10.0.3.0"))),
        leave(udp(CLIENT, ROUTED_ELSEWHERE)),
    ),
    "cilium_policy": Case(
        lambda scene: scene.allow(258, egress=True), leave(tcp(CLIENT, REMOTE)), config=POLICY
    ),
    "cilium_policy_absent": Case(
        lambda scene: scene.lacks(266, egress=OPEN),
        leave(tcp(CLIENT, REMOTE, flags="A")),
        ready=lambda scene: (
            scene.allow(258, egress=True),
            scene.run(Hook.FROM_CONTAINER, tcp(CLIENT, REMOTE)),
            scene.allow(258, egress=True, deny=True),
        ),
        config=POLICY,
    ),
    "cilium_calls": Case(delete("cilium_calls", Index(index=29)), leave(tcp(CLIENT, REMOTE))),
    "cilium_call_policy": Case(
        delete("cilium_call_policy", Index(index=267)), leave(udp(CLIENT, NEIGHBOUR))
    ),
    "cilium_runtime_config": Case(
        lambda scene: scene.map("cilium_runtime_config").update(Index(index=2), Word(value=1)),
        leave(udp(CLIENT, REMOTE)),
    ),
    "cilium_ct4_global": Case(
        clear("cilium_ct4_global"), lambda s: s.deliver(SYNACK), ready_flow, POLICY
    ),
    "cilium_ct_any4_global": Case(
        clear("cilium_ct_any4_global"),
        lambda s: s.deliver(udp(REMOTE, CLIENT, 53, 40000)),
        ready_flow,
        POLICY,
    ),
    "cilium_snat_v4_external": Case(
        clear("cilium_snat_v4_external"),
        lambda s: s.run(Hook.FROM_NETDEV, udp(WORLD, NODE, 53, 40000)),
        ready_masquerade,
        MASQUERADE,
    ),
    "cilium_ipv4_frag_datagrams": Case(
        delete(
            "cilium_ipv4_frag_datagrams",
            FragKey(daddr=IPv4Address(REMOTE), saddr=IPv4Address(CLIENT), id=9, proto=17),
        ),
        leave(LATER),
        ready_fragment,
    ),
    "cilium_lb4_services_v2": Case(
        delete("cilium_lb4_services_v2", ServiceKey(address=IPv4Address(VIP), dport=80, proto=6)),
        leave(tcp(CLIENT, VIP)),
        ready_service,
    ),
    "cilium_lb4_backends": Case(
        delete("cilium_lb4_backends", BackendKey(id=Scene.backend_id(REMOTE, 8080))),
        leave(tcp(CLIENT, VIP)),
        ready_service,
    ),
    "cilium_lb4_reverse_nat": Case(
        delete("cilium_lb4_reverse_nat", RevNatKey(index=1)),
        lambda s: s.deliver(tcp(REMOTE, CLIENT, 8080, 2000, "SA")),
        ready_answer,
    ),
    "cilium_lb4_affinity": Case(
        clear("cilium_lb4_affinity"), leave(tcp(CLIENT, VIP, 2001)), ready_affinity
    ),
    "cilium_lb_affinity_match": Case(
        delete(
            "cilium_lb_affinity_match",
            AffinityMatch(backend_id=Scene.backend_id(REMOTE, 8080), rev_nat_id=1),
        ),
        leave(tcp(CLIENT, VIP, 2001)),
        ready_affinity,
    ),
    "cilium_lb4_source_range": Case(allow_range, leave(tcp(CLIENT, VIP)), ready_source_range),
    "cilium_lb4_maglev": Case(
        set_maglev,
        lambda s: s.run(Hook.FROM_NETDEV, tcp(WORLD, NODE, 2000, 30080)),
        ready_maglev,
        {"enable_nodeport": True, "enable_maglev": True},
    ),
    "cilium_ipmasq_v4": Case(
        lambda s: s.map("cilium_ipmasq_v4").update(CidrKey.of(IPv4Network(WORLD)), Flag()),
        lambda s: s.run(Hook.TO_NETDEV, udp(CLIENT, WORLD)),
        config=MASQUERADE,
    ),
    "cilium_cidr_v4_dyn": Case(
        lambda s: s.map("cilium_cidr_v4_dyn").update(CidrKey.of(IPv4Network(WORLD)), Flag()),
        lambda s: s.run(Hook.XDP, udp(WORLD, NODE)),
        config={"enable_prefilter": True},
    ),
    "cilium_cidr_v4_fix": Case(
        lambda s: s.map("cilium_cidr_v4_fix").update(CidrKey.of(IPv4Network(WORLD)), Flag()),
        lambda s: s.run(Hook.XDP, udp(WORLD, NODE)),
        config={"enable_prefilter": True},
    ),
}

# maps that only tell, and the one whose test needs a node's routes
ELSEWHERE = {
    "cilium_metrics": "counted by every test",
    "cilium_events": "read by every test",
    "cilium_signals": "test_signals.py",
    "cilium_mind": "test_mind.py",
    "cilium_calls_custom": "test_custom.py",
    "cilium_tail_call_buffer4": "test_conntrack.py",
    "cilium_nodeport_neigh4": "test_nodeport.py: a client the stack does not know",
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_entry_changes_a_packets_fate(case):
    with Scene(**case.config) as scene:
        case.ready(scene)
        before = outcome(case.send(scene))
    with Scene(**case.config) as scene:
        case.ready(scene)
        case.change(scene)
        after = outcome(case.send(scene))
    assert before != after


def test_every_map_in_use_is_tried():
    used = {layout.name for layout in MAPS if not layout.unused}
    assert used == {*CASES, *ELSEWHERE}


def test_the_words_of_runtime_config_have_the_same_names_in_c():
    names = read_object(build_objects(["bpf_lxc"])["bpf_lxc"]).btf.enums["runtime_config"]
    mine = {f"RUNTIME_CONFIG_{slot.name}": slot.value for slot in RuntimeSlot}
    assert {name: names[name] for name in mine} == mine
