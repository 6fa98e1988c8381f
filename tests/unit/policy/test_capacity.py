"""Policies as large as a map: what fits is compiled at once, what does not is refused."""

import pytest

from lab.errors import InputError
from lab.plan.inventory import cluster, inventory
from lab.policy.compiler import Compiler
from lab.policy.objects import IPBlock, NetworkPolicy, NetworkRule, Peer, Selector
from topologies.two_nodes import topology

CLUSTER = cluster(inventory(topology))


def closed_but_for(count):
    """A policy that lets ``count`` networks in, each with an identity and a selector."""
    blocks = (IPBlock(f"20.{number >> 8}.{number & 255}.0/24") for number in range(count))
    rule = NetworkRule(tuple(Peer(ip_block=block) for block in blocks))
    return NetworkPolicy(name="large", pod_selector=Selector.of(app="server"), ingress=(rule,))


def test_sixteen_thousand_networks_are_compiled():
    """Comparing each of them with every other would take minutes."""
    compiled = Compiler().compile(CLUSTER, [closed_but_for(16_000)])
    assert 16_000 <= len(compiled.endpoints["default/server"].entries) <= 16_384


def test_more_than_the_map_holds_are_refused():
    with pytest.raises(InputError, match="'default/server' needs 17002 policy entries, its map"):
        Compiler().compile(CLUSTER, [closed_but_for(17_000)])
