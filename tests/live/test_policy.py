"""Policies in force on a running lab: allowed and denied, by pod, port, network and direction."""

from dataclasses import replace

import pytest

from lab import Lab, Pod
from lab.errors import InputError
from lab.policy.objects import (
    Direction,
    IPBlock,
    NetworkPolicy,
    NetworkRule,
    Peer,
    Port,
    Selector,
)
from topologies.two_nodes import topology

pytestmark = pytest.mark.live

SERVER = Selector.of(app="server")
CLIENT = Selector.of(app="client")
DENY = NetworkPolicy(name="p", pod_selector=SERVER)
FROM_CLIENT = NetworkRule((Peer(CLIENT),), (Port("TCP", 8080),))
EGRESS = frozenset({Direction.EGRESS})

CASES = {
    "no policy: everybody": ((), {"client", "other", "alpha", "beta", "world"}),
    "an empty policy: its own node only": ((DENY,), {"beta"}),
    "one client": ((replace(DENY, ingress=(FROM_CLIENT,)),), {"client", "beta"}),
    "another port": (
        (replace(DENY, ingress=(NetworkRule((Peer(CLIENT),), (Port("TCP", 81),)),)),),
        {"beta"},
    ),
    "a range that holds the port": (
        (replace(DENY, ingress=(NetworkRule((Peer(CLIENT),), (Port("TCP", 8000, 8100),)),)),),
        {"client", "beta"},
    ),
    "two policies add up": (
        (
            replace(DENY, ingress=(FROM_CLIENT,)),
            replace(DENY, name="q", ingress=(NetworkRule((Peer(Selector.of(app="other")),)),)),
        ),
        {"client", "other", "beta"},
    ),
    "a network outside": (
        (replace(DENY, ingress=(NetworkRule((Peer(ip_block=IPBlock("172.30.0.254/32")),)),)),),
        {"world", "beta"},
    ),
    "egress of the client to nobody": (
        (NetworkPolicy(name="p", pod_selector=CLIENT, directions=EGRESS),),
        {"other", "alpha", "beta", "world"},
    ),
}


@pytest.fixture(scope="module")
def lab():
    from lab import Options

    with Lab(replace(topology, options=Options(masquerade="off"))) as lab:
        with lab.pod("server").serve_tcp(8080):
            yield lab


@pytest.fixture
def applied(lab):
    done = []

    def apply(*policies):
        lab.apply(*policies)
        done.extend(policies)

    yield apply
    if done:
        lab.delete(*{policy.title: policy for policy in done}.values())


@pytest.mark.parametrize(("policies", "allowed"), CASES.values(), ids=CASES.keys())
def test_who_reaches_the_server(lab, applied, policies, allowed):
    applied(*policies)
    reach = {
        name
        for name in ("client", "other", "alpha", "beta", "world")
        if lab.place(name).connect(lab.pod("server"), 8080, payload=b"?", timeout_s=0.3).ok
    }
    assert reach == allowed


def test_answers_pass_a_policy_that_lets_nothing_in(lab, applied):
    applied(NetworkPolicy(name="p", pod_selector=CLIENT))
    assert lab.pod("client").connect(lab.pod("server"), 8080, payload=b"?").ok
    assert not lab.pod("server").ping(lab.pod("client"), timeout_s=0.3).ok


def test_a_block_that_matches_pods_changes_their_identity_and_holds(lab, applied):
    before = identities(lab)
    block = Peer(ip_block=IPBlock(f"{lab.pod('client').address}/32"))
    applied(replace(DENY, ingress=(NetworkRule((block,)),)))
    assert identities(lab)["client"] != before["client"]
    assert lab.pod("client").connect(lab.pod("server"), 8080, payload=b"?").ok
    assert not lab.pod("other").connect(lab.pod("server"), 8080, timeout_s=0.3).ok


def test_policy_stays_in_force_without_agent_and_changes_with_the_next(lab, applied):
    applied(DENY)
    lab.agent.kill()
    assert not lab.pod("client").connect(lab.pod("server"), 8080, timeout_s=0.3).ok
    lab.agent.start()
    assert lab.agent.policies() == (DENY,)
    applied(replace(DENY, ingress=(FROM_CLIENT,)))
    assert lab.pod("client").connect(lab.pod("server"), 8080, payload=b"?").ok


def test_a_new_pod_is_under_the_policies_there_are(lab, applied):
    applied(replace(DENY, ingress=(FROM_CLIENT,)))
    lab.add_pod(Pod("client2", node="beta", labels={"app": "client"}))
    lab.add_pod(Pod("stranger", node="beta", labels={"app": "stranger"}))
    assert lab.pod("client2").connect(lab.pod("server"), 8080, payload=b"?").ok
    assert not lab.pod("stranger").connect(lab.pod("server"), 8080, timeout_s=0.3).ok
    lab.remove_pod("client2")
    lab.remove_pod("stranger")


def test_an_impossible_policy_is_refused_and_the_old_one_stays(lab, applied):
    applied(DENY)
    bad = replace(DENY, ingress=(NetworkRule((), (Port("TCP", 90, 80),)),))
    with pytest.raises(InputError):
        lab.apply(bad)
    assert lab.agent.policies() == (DENY,)


def identities(lab):
    return {item.pod: item.identity for item in lab.agent.endpoints() if item.pod}
