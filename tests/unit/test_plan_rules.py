"""Which of a plan's nodes and switches compare packets with rules, and with which."""

import pytest

from lab import Node, Options, Topology
from lab.plan import plan
from lab.plan.steps import AddRule, DeleteRule, SetSysctl

NODES = ("alpha", "beta")
CASES = {
    "as init.sh": (Options(), {9, 10, 100}),
    "no proxy": (Options(proxy_rules=False), set()),
    "no datapath": (Options(datapath=False, endpoint_routes=True, routing="native"), set()),
}


def steps_of(options: Options) -> tuple[object, ...]:
    return plan(Topology(name="t", nodes=tuple(map(Node, NODES)), options=options))


@pytest.mark.parametrize(("options", "priorities"), CASES.values(), ids=CASES.keys())
def test_routing_rules_of_each_node(options, priorities):
    steps = steps_of(options)
    for name in NODES:
        added = {s.priority for s in steps if isinstance(s, AddRule) and s.where == name}
        assert added == priorities
        # the local table is moved behind the rules, or stays where the kernel put it
        gone = {s.priority for s in steps if isinstance(s, DeleteRule) and s.where == name}
        assert gone == ({0} if priorities else set())


def test_the_underlay_is_a_switch_that_asks_no_netfilter_where_the_kernel_could():
    told = [s for s in steps_of(Options()) if isinstance(s, SetSysctl) and "bridge" in s.key]
    assert {(s.where, s.value, s.if_there) for s in told} == {("underlay", "0", True)}
    assert any(s.key == "bridge.bridge-nf-call-iptables" for s in told)
    assert told[0].commands()[0].startswith("ip netns exec underlay sysctl -qew net.bridge.")
