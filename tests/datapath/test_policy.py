"""Policy on single packets: who may talk to whom, in which direction, and what is told of it."""

import pytest

from lab.datapath.events import PolicyVerdictEvent
from lab.datapath.testrun import Verdict
from lab.layouts.attach import Hook
from tests.datapath.scene import CLIENT, NEIGHBOUR, REMOTE, WORLD, echo, tcp, udp, unreachable

IN, OUT = False, True


def incoming(scene, packet=None, sender=258):
    return scene.deliver(packet or tcp(REMOTE, CLIENT), sender=sender)


def outgoing(scene, packet=None):
    return scene.run(Hook.FROM_CONTAINER, packet or tcp(CLIENT, REMOTE))


ALLOWED, MISSED, DENIED = None, "DROP_POLICY", "DROP_POLICY_DENY"
PORT = {"protocol": 6, "port": 80}

# entries as (identity, direction, options); what is tried; the reason
CASES = {
    "an empty map: nothing comes in": ([], incoming, MISSED),
    "an empty map: nothing goes out": ([], outgoing, MISSED),
    "anybody on anything comes in": ([(0, IN, {})], incoming, ALLOWED),
    "anybody on anything goes out": ([(0, OUT, {})], outgoing, ALLOWED),
    "leave to send is no leave to receive": ([(0, OUT, {})], incoming, MISSED),
    "leave to receive is no leave to send": ([(0, IN, {})], outgoing, MISSED),
    "the sender is named": ([(258, IN, {})], incoming, ALLOWED),
    "another sender is named": ([(257, IN, {})], incoming, MISSED),
    "the sender's port is named": ([(258, IN, PORT)], incoming, ALLOWED),
    "another port is named": ([(258, IN, {"protocol": 6, "port": 81})], incoming, MISSED),
    "another protocol is named": ([(258, IN, {"protocol": 17, "port": 80})], incoming, MISSED),
    "the protocol is named": ([(0, IN, {"protocol": 6})], incoming, ALLOWED),
    "anybody is allowed, the sender denied": (
        [(0, IN, {}), (258, IN, {"deny": True})],
        incoming,
        DENIED,
    ),
    "the sender is allowed, anybody denied": (
        [(258, IN, {}), (0, IN, {"deny": True})],
        incoming,
        DENIED,
    ),
    "only the sender's port is denied": (
        [(0, IN, {}), (258, IN, {**PORT, "deny": True})],
        incoming,
        DENIED,
    ),
    "the receiver is denied": ([(0, OUT, {}), (258, OUT, {"deny": True})], outgoing, DENIED),
    "an ICMP type is a port": (
        [(258, IN, {"protocol": 1, "port": 8})],
        lambda scene: incoming(scene, echo(REMOTE, CLIENT)),
        ALLOWED,
    ),
    "another ICMP type is another port": (
        [(258, IN, {"protocol": 1, "port": 13})],
        lambda scene: incoming(scene, echo(REMOTE, CLIENT)),
        MISSED,
    ),
    "fragmentation needed always passes": (
        [],
        lambda scene: incoming(scene, unreachable(WORLD, CLIENT, udp(CLIENT, REMOTE), code=4)),
        ALLOWED,
    ),
    "other errors about nothing do not": (
        [],
        lambda scene: incoming(scene, unreachable(WORLD, CLIENT, udp(CLIENT, REMOTE), code=3)),
        MISSED,
    ),
    "whoever is not in the ipcache is the world": (
        [(2, OUT, {})],
        lambda scene: outgoing(scene, udp(CLIENT, WORLD)),
        ALLOWED,
    ),
}


@pytest.fixture
def enforced(scenes):
    scene = scenes(enable_policy=True)
    for instance in ("bpf_lxc", "neighbour"):
        scene.map("cilium_policy", instance).map.clear()
    return scene


@pytest.mark.parametrize(("rules", "attempt", "reason"), CASES.values(), ids=CASES.keys())
def test_policy(enforced, rules, attempt, reason):
    for identity, egress, options in rules:
        enforced.allow(identity, egress=egress, **options)
    assert attempt(enforced).drop_reason == reason


def test_an_answer_passes_whatever_the_policy_says(enforced):
    enforced.allow(0, egress=OUT)
    assert outgoing(enforced).drop_reason is None
    assert incoming(enforced, tcp(REMOTE, CLIENT, 80, 40000, "SA")).drop_reason is None


def test_an_error_about_an_allowed_flow_passes(enforced):
    enforced.allow(0, egress=OUT)
    sent = udp(CLIENT, REMOTE)
    outgoing(enforced, sent)
    assert incoming(enforced, unreachable(REMOTE, CLIENT, sent)).drop_reason is None


def test_an_old_answers_port_is_no_way_in(enforced):
    """Whoever answered from port 80 may not, later, connect from it to any port."""
    enforced.allow(0, egress=OUT)
    enforced.allow(258, egress=IN, protocol=6, port=80)
    outgoing(enforced)
    incoming(enforced, tcp(REMOTE, CLIENT, 80, 40000, "SA"))
    outgoing(enforced, tcp(CLIENT, REMOTE, flags="FA"))
    incoming(enforced, tcp(REMOTE, CLIENT, 80, 40000, "FA"))
    assert incoming(enforced, tcp(REMOTE, CLIENT, 80, 40000, "S")).drop_reason == MISSED


def test_a_policy_taken_back_ends_an_established_flow(enforced):
    enforced.allow(0, egress=OUT)
    outgoing(enforced)
    enforced.map("cilium_policy").map.clear()
    result = outgoing(enforced, tcp(CLIENT, REMOTE, flags="A"))
    assert result.drop_reason == MISSED


def test_ingress_is_enforced_by_the_receiver_on_the_senders_hook(enforced):
    enforced.allow(0, egress=OUT)
    result = outgoing(enforced, tcp(CLIENT, NEIGHBOUR))
    assert (result.drop_reason, result.events[-1].dst_endpoint) == (MISSED, 267)
    enforced.allow(256, egress=IN, instance="neighbour")
    assert outgoing(enforced, tcp(CLIENT, NEIGHBOUR)).verdict is Verdict.REDIRECT


def verdicts(result):
    return [event for event in result.events if isinstance(event, PolicyVerdictEvent)]


def test_a_refusal_is_told_with_direction_and_peer(enforced):
    [told] = verdicts(incoming(enforced))
    assert (told.name, told.direction, told.remote_identity) == (MISSED, "ingress", 258)
    assert (told.port, told.protocol) == (80, 6)


def test_leave_is_told_once_per_flow(enforced):
    enforced.allow(258, egress=OUT, **PORT)
    [told] = verdicts(outgoing(enforced))
    assert (told.verdict, told.match, told.direction) == (0, "L3-L4", "egress")
    assert not verdicts(outgoing(enforced, tcp(CLIENT, REMOTE, flags="A")))


def test_audit_lets_pass_and_says_so(scenes):
    scene = scenes(enable_policy=True, policy_audit_mode=True)
    result = incoming(scene)
    [told] = verdicts(result)
    assert (result.drop_reason, told.audited) == (None, True)


def test_entries_count_what_they_decide(enforced):
    enforced.allow(258, egress=OUT)
    packet = udp(CLIENT, REMOTE)
    outgoing(enforced, packet)
    outgoing(enforced, packet)
    [(_, entry)] = enforced.map("cilium_policy").items()
    assert (entry.packets, entry.bytes) == (2, 2 * len(packet))
