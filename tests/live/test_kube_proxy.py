"""The comparison's services: the same answers as ours, from netfilter."""

from collections import Counter
from dataclasses import replace

import pytest

from lab import Lab, Options, Service, ServicePort
from lab.errors import InputError
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

PLAIN = replace(topology, options=Options(datapath=False, endpoint_routes=True, routing="native"))
WEB = Service(
    name="web",
    kind="NodePort",
    ports=(ServicePort(80, 8080, node_port=30080),),
    backends=("web", "server"),
)


@pytest.fixture(scope="module")
def lab():
    with Lab(PLAIN) as lab:
        with (
            lab.pod("web").serve_tcp(8080, reply=b"web"),
            lab.pod("server").serve_tcp(8080, reply=b"server"),
        ):
            yield lab


def answers(place, address, port):
    found = (place.connect(address, port, payload=b"?", timeout_s=0.5) for _ in range(16))
    return set(Counter(answer.reply.decode() or answer.error for answer in found))


@pytest.mark.parametrize("flavour", ["iptables", "nftables"])
def test_both_backends_answer_pods_and_the_world(lab, flavour):
    (service,) = lab.kube_proxy(flavour, WEB)
    assert answers(lab.pod("client"), service.address, 80) == {"web", "server"}
    assert answers(lab.world, lab.node("alpha"), 30080) == {"web", "server"}
    # a pod that is its own backend
    assert answers(lab.pod("web"), service.address, 80) == {"web", "server"}
    for node in ("alpha", "beta"):
        lab.node(node).run(["nft", "flush", "ruleset"], check=True)
    assert answers(lab.pod("client"), service.address, 80) != {"web", "server"}


def test_affinity_is_the_recent_match(lab):
    (service,) = lab.kube_proxy("iptables", replace(WEB, affinity_s=60))
    assert len(answers(lab.pod("client"), service.address, 80)) == 1


def test_another_flavour_is_refused(lab):
    with pytest.raises(InputError, match="no kube-proxy"):
        lab.kube_proxy("ipvs", WEB)
