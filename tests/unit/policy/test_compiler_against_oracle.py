"""The compiler's entries, looked up as the datapath does, decide as the oracle says."""

from ipaddress import ip_address, ip_network
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.policy.compiler import Compiler, difference
from lab.policy.objects import Direction, Semantics
from lab.policy.oracle import expect
from tests import policy_strategies as random_

PROTOCOLS = {"ICMP": 1, "TCP": 6, "UDP": 17, "SCTP": 132}


def identity_seen(compiled, cluster, address, node):
    """The identity that the ipcache of ``node`` gives an address, found the slow way."""
    for pod in cluster.workloads:
        if pod.address == address:
            return compiled.identity_of[pod.title]
    for machine in cluster.machines:
        if address in machine.addresses:
            return 1 if machine.name == node else 6
    inside = [n for n in map(ip_network, compiled.networks) if ip_address(address) in n]
    longest = max(inside, key=lambda network: network.prefixlen, default=None)
    return 2 if longest is None else compiled.networks[str(longest)]


def decide(compiled, cluster, source, destination, packet):
    """Run one packet over both policy maps: (reason, direction)."""
    by_address = {pod.address: pod for pod in cluster.workloads}
    if source == destination:
        return 0, None
    steps = ((Direction.EGRESS, source, destination), (Direction.INGRESS, destination, source))
    for direction, own, other in steps:
        pod = by_address.get(own)
        if pod is None:
            continue
        match = compiled.endpoints[pod.title].look_up(
            identity_seen(compiled, cluster, other, pod.node),
            direction,
            PROTOCOLS[packet.protocol],
            packet.port,
        )
        if match.reason:
            return match.reason, direction
    return 0, None


def parties(cluster):
    """Addresses of all pods, of both nodes, and of three hosts outside."""
    pods = [pod.address for pod in cluster.workloads]
    return [*pods, *(machine.addresses[0] for machine in cluster.machines), *random_.OUTSIDE]


@settings(max_examples=150, deadline=None)
@given(random_.clusters(), random_.policies, st.sampled_from(Semantics), random_.packets)
def test_every_packet_gets_the_verdict_that_the_specification_gives_it(
    cluster, policies, semantics, packet
):
    compiled = Compiler(semantics).compile(cluster, policies)
    for source, destination in product(parties(cluster), repeat=2):
        verdict = expect(cluster, policies, source, destination, packet, semantics)
        got = decide(compiled, cluster, source, destination, packet)
        assert got == (verdict.reason, verdict.direction), (source, destination, verdict.because)


@settings(max_examples=60, deadline=None)
@given(random_.clusters(), random_.clusters(), random_.policies, random_.policies)
def test_a_compiler_with_a_past_compiles_like_a_new_one(first, second, before, after):
    """Identity numbers may differ (they are kept), so verdicts are compared, not entries."""
    compiler = Compiler()
    compiler.compile(first, before)
    kept, fresh = compiler.compile(second, after), Compiler().compile(second, after)
    for pod in second.workloads:
        for other in second.workloads:
            for direction in Direction:
                results = {
                    compiled.endpoints[pod.title]
                    .look_up(compiled.identity_of[other.title], direction, 6, 80)
                    .reason
                    for compiled in (kept, fresh)
                }
                assert len(results) == 1


@settings(max_examples=60, deadline=None)
@given(random_.clusters(), random_.policies, random_.policies)
def test_writing_a_difference_leads_from_one_compilation_to_the_next(cluster, before, after):
    compiler = Compiler()
    old = compiler.compile(cluster, before)
    new = compiler.compile(cluster, after)
    update = difference(old, new)
    for pod in cluster.workloads:
        held = dict(old.endpoints[pod.title].entries)
        held.update(update.add.get(pod.title, {}))
        for key in update.remove.get(pod.title, ()):
            del held[key]
        assert held == dict(new.endpoints[pod.title].entries)
    assert difference(new, new).empty
