"""Who reaches whom over the attached datapath, on one node and across nodes."""

import pytest

from lab import Lab
from topologies.two_nodes import topology

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=("netns", "mininet"))
def lab(request):
    with Lab(topology, engine=request.param) as lab:
        yield lab


REACH = {
    "pod to pod on its node": ("client", "web"),
    "pod to pod on the other node": ("client", "server"),
    "pod to pod, the other way round": ("server", "client"),
    "pod to its node": ("client", "alpha"),
    "pod to the other node": ("client", "beta"),
    "node to its pod": ("alpha", "client"),
    "node to a pod of the other node": ("alpha", "server"),
    "node to node": ("alpha", "beta"),
}


@pytest.mark.parametrize(("source", "target"), REACH.values(), ids=REACH.keys())
def test_ping_is_answered(lab, source, target):
    assert lab.place(source).ping(lab.place(target), count=2).ok


@pytest.mark.parametrize(("source", "target"), REACH.values(), ids=REACH.keys())
def test_tcp_echo_comes_back(lab, source, target):
    with lab.place(target).serve_tcp(8080) as server:
        connection = lab.place(source).connect(lab.place(target), 8080, payload=b"hello")
        assert (connection.ok, connection.reply, server.received) == (True, b"hello", 1)


@pytest.mark.parametrize(("source", "target"), REACH.values(), ids=REACH.keys())
def test_udp_echo_comes_back(lab, source, target):
    with lab.place(target).serve_udp(5353):
        datagram = lab.place(source).send_udp(lab.place(target), 5353, b"hello")
    assert datagram.ok
    assert datagram.reply.startswith(b"hello")


def test_a_closed_port_refuses():
    with Lab(topology) as lab:
        answer = lab.pod("client").connect(lab.pod("server"), 81)
    assert (answer.ok, answer.error) == (False, "ECONNREFUSED")


def test_nobody_answers_for_an_address_without_pod(lab):
    assert not lab.pod("client").ping("10.0.2.99", timeout_s=0.3).ok
