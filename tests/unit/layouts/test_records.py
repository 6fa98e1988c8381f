"""Structures turn into the memory the kernel expects, and back."""

import dataclasses
import struct
from ipaddress import IPv4Address, IPv4Network

import pytest

from lab.layouts import core, events, flows
from lab.layouts.maps import MAPS, map_layout
from lab.layouts.records import Record

POD, NODE = IPv4Address("10.0.1.10"), IPv4Address("172.30.0.2")
TABLE = {
    "cilium_lxc key": (
        core.EndpointKey(ip4=POD),
        bytes.fromhex("0a00010a" + "00" * 12 + "01 00 0000"),
    ),
    "cilium_lxc value": (
        core.EndpointInfo(
            ifindex=10,
            lxc_id=266,
            mac="02:00:0a:00:01:0a",
            node_mac="06:00:0a:00:01:0a",
            sec_id=256,
        ),
        bytes.fromhex(
            "0a000000 0000 0a01 00000000 00000000 02000a00010a 0000 06000a00010a 0000"
            "00010000 00000000 0000000000000000"
        ),
    ),
    "cilium_ipcache key": (
        core.IpcacheKey.of(IPv4Network("10.0.2.0/24")),
        bytes.fromhex("38000000 0000 00 01 0a000200" + "00" * 12),
    ),
    "cilium_ipcache value": (
        core.RemoteEndpointInfo(sec_identity=300, tunnel_endpoint=NODE),
        bytes.fromhex("2c010000 ac1e0002 0000 00 00"),
    ),
    "cilium_tunnel_map key": (
        core.TunnelKey(ip4=IPv4Address("10.0.2.0")),
        bytes.fromhex("0a000200" + "00" * 12 + "01 00 0000"),
    ),
    "cilium_ipmasq_v4 key": (
        core.CidrKey.of(IPv4Network("192.0.2.0/24")),
        bytes.fromhex("18000000 c0000200"),
    ),
    "a conntrack tuple, ports in network order": (
        flows.Tuple4(daddr=POD, saddr=NODE, dport=80, sport=1000, nexthdr=6, flags=1),
        bytes.fromhex("0a00010a ac1e0002 0050 03e8 06 01"),
    ),
}


@pytest.mark.parametrize(("record", "memory"), TABLE.values(), ids=TABLE.keys())
def test_memory_is_what_the_kernel_expects(record, memory):
    assert record.pack() == memory
    assert type(record).unpack(memory) == record


KINDS = [
    kind
    for module in (core, flows, events)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_any_memory_survives_unpacking_and_packing(kind):
    memory = bytearray(range(1, kind.size() + 1))
    for place in kind.places():
        if place.name in ("mac", "node_mac"):  # six bytes, then two that carry nothing
            memory[place.offset + 6 : place.offset + 8] = bytes(2)
    assert kind.unpack(bytes(memory)).pack() == memory


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(struct.error):
        core.EndpointInfo(lxc_id=1 << 16).pack()


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        core.Index(index=1).index = 2


NAMES = {
    "cilium_ipcache": "cilium_ipcache",
    "cilium_policy_01234": "cilium_policy",
    "cilium_calls_hostns_00001": "cilium_calls",
    "cilium_calls_overlay_2": "cilium_calls",
    "cilium_call_policy": "cilium_call_policy",
    "cilium_ct4_global": "cilium_ct4_global",
    "somebody_elses": None,
}


@pytest.mark.parametrize(("pin", "name"), NAMES.items(), ids=NAMES.keys())
def test_private_maps_are_known_by_the_name_before_their_suffix(pin, name):
    layout = map_layout(pin)
    assert (layout.name if layout else None) == name


def test_every_map_is_described_once():
    assert len({layout.name for layout in MAPS}) == len(MAPS)
