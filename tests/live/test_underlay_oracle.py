"""tshark on the underlay sees what the lab prints: outer addresses, port, VNI, inner packet."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lab import Lab
from lab.waiting import eventually
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

FIELDS = ("ip.src", "ip.dst", "udp.dstport", "vxlan.vni")
TSHARK = [
    "tshark",
    "-i",
    "br0",
    "-f",
    "udp port 8472",
    "-c",
    "1",
    "-d",
    "udp.port==8472,vxlan",
    "-T",
    "fields",
    "-E",
    "occurrence=a",
]


def captured(lab, send):
    """The fields of the first VXLAN packet on the bridge, sending until tshark has one."""
    argv = [*TSHARK, *(word for field in FIELDS for word in ("-e", field))]
    with ThreadPoolExecutor(1) as pool:
        capture = pool.submit(lab.underlay.run, argv, timeout_s=30)
        eventually(lambda: (send(), capture.done())[1], within_s=30, what="tshark has a packet")
        return dict(zip(FIELDS, capture.result().stdout.rstrip("\n").split("\t"), strict=True))


@pytest.mark.parametrize(("source", "target"), [("client", "server"), ("server", "client")])
def test_tshark_sees_the_headers_that_the_ladder_prints(source, target):
    with Lab(topology) as lab:
        sender, receiver = lab.pod(source), lab.pod(target)
        seen = captured(lab, lambda: sender.send_udp(receiver, 5000, want_reply=False))
        trace = lab.follow(source, target, protocol="udp").packets[0]
        wire = [hop for hop in trace.at(namespace="underlay") if hop.taken]
        outer = (str(sender.node.address), str(receiver.node.address))
        inner = (str(sender.address), str(receiver.address))
        assert seen["ip.src"].split(",") == [outer[0], inner[0]]
        assert seen["ip.dst"].split(",") == [outer[1], inner[1]]
        assert seen["udp.dstport"].split(",") == ["8472", "5000"]
        assert {int(seen["vxlan.vni"])} == {hop.identity for hop in wire} == {sender.facts.identity}
