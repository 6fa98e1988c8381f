"""The prefilter: what XDP turns away."""

from ipaddress import IPv4Network

import pytest
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from lab.datapath.testrun import Verdict
from lab.layouts.attach import Hook
from lab.layouts.core import CidrKey, Flag
from tests.datapath.scene import CLIENT_LXC, CLIENT_MAC, NODE, WORLD, tcp

ADDRESS, NETWORK = "cilium_cidr_v4_fix", "cilium_cidr_v4_dyn"
V6 = bytes(Ether(src=CLIENT_MAC, dst=CLIENT_LXC) / IPv6())
DROP, PASS = (Verdict.DROP, "DROP_POLICY_DENY"), (Verdict.PASS, None)

CASES = {
    "nothing is listed": ([], tcp(WORLD, NODE), PASS),
    "the address is listed": ([(ADDRESS, WORLD)], tcp(WORLD, NODE), DROP),
    "its network is listed": ([(NETWORK, "203.0.113.0/24")], tcp(WORLD, NODE), DROP),
    "another address is listed": ([(ADDRESS, "203.0.113.11")], tcp(WORLD, NODE), PASS),
    "another network is listed": ([(NETWORK, "203.0.112.0/24")], tcp(WORLD, NODE), PASS),
    "the destination is listed": ([(ADDRESS, NODE)], tcp(WORLD, NODE), PASS),
    "everything is listed, but this is IPv6": ([(NETWORK, "0.0.0.0/0")], V6, PASS),
    "everything is listed, but the header is cut": (
        [(NETWORK, "0.0.0.0/0")],
        tcp(WORLD, NODE)[:33],
        PASS,
    ),
}


@pytest.mark.parametrize(("listed", "packet", "expected"), CASES.values(), ids=CASES.keys())
def test_prefilter(scenes, listed, packet, expected):
    scene = scenes(enable_prefilter=True)
    for name in (ADDRESS, NETWORK):
        scene.map(name).map.clear()
    for name, network in listed:
        scene.map(name).update(CidrKey.of(IPv4Network(network)), Flag())
    result = scene.run(Hook.XDP, packet)
    assert (result.verdict, result.drop_reason) == expected


def test_switched_off_nothing_is_looked_up(scene):
    scene.map(ADDRESS).update(CidrKey.of(IPv4Network(WORLD)), Flag())
    assert scene.run(Hook.XDP, tcp(WORLD, NODE)).verdict is Verdict.PASS
