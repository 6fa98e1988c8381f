"""Without one of its sources a trace loses the grades it says it loses, and no others."""

import pytest

from lab.observe.grades import FALLS, Fall
from lab.observe.tracer import Tracer
from lab.packets import new_cookie
from lab.trace import Evidence
from tests.live.following import acquainted, changed, host_device
from tests.live.objects import compiled
from topologies.single_node import topology

pytestmark = pytest.mark.live

PROGRAMS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp/pass") int xdp_pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("tc/pass") int tc_pass(struct __sk_buff *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
CHAIN = "table ip t { chain c { type filter hook prerouting priority 0; }; }"
SOURCES = [name for name in FALLS if name != "on_readable"]  # where there is no sk_data_ready
OTHERS = ["on_gro_result", "on_netif_rx", "on_socket_read", "netfilter_last", "cgroup_ingress"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server that receives through everything: NAPI, native XDP, a classifier, a chain."""
    program = compiled(tmp_path_factory.mktemp("grades"), "pass", PROGRAMS)
    with acquainted(topology) as lab:
        server, node = lab.pod("server"), lab.node("alpha")
        server.run(["nft", "-f", "-"], stdin=CHAIN, check=True)
        server.run(["tc", "qdisc", "add", "dev", "eth0", "clsact"], check=True)
        classifier = f"tc filter add dev eth0 ingress bpf da obj {program} sec tc/pass"
        server.run(classifier.split(), check=True)
        driver = "ip link set dev eth0 xdpdrv"
        peer = f"ethtool -K {host_device(lab, 'server')} tso"
        with changed(
            (node, f"{peer} off", f"{peer} on"),
            (server, f"{driver} obj {program} sec xdp/pass", f"{driver} off"),
        ):
            yield lab


def grades(lab, without=""):
    """The best grade of each step taken in the server, by number."""
    client, server = lab.pod("client"), lab.pod("server")
    cookie = new_cookie()
    with Tracer(lab) as tracer, server.serve_udp(5000):
        if without:
            tracer.detach(without)
        tracer.only_cookie(cookie)
        client.send_udp(server, 5000, cookie=cookie)
        asked, *_ = tracer.traces()
    best: dict[int, Evidence] = {}
    for hop in asked.at(namespace="server"):
        if hop.step is not None and hop.taken:
            known = best.get(hop.step.number, hop.evidence)
            best[hop.step.number] = min(known, hop.evidence, key=lambda grade: grade.rank)
    return best


@pytest.fixture(scope="module")
def whole(lab):
    return grades(lab)


@pytest.mark.parametrize("source", [*SOURCES, *OTHERS])
def test_a_source_taken_away_costs_what_is_said(lab, whole, source):
    left = grades(lab, source)
    lost = {n: (grade, left.get(n)) for n, grade in whole.items() if left.get(n) is not grade}
    said: tuple[Fall, ...] = FALLS.get(source, ())
    assert lost == {n: (fall.grade, fall.left) for fall in said for n in fall.steps}
