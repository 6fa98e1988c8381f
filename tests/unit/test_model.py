"""A description that cannot be built is refused: object, cause, next action."""

import json

import pytest

from lab import Link, Node, Options, Pod, Topology
from lab.errors import TopologyError

ALPHA = (Node("alpha"),)

IMPOSSIBLE = {
    "an empty topology": (lambda: Topology(name="t", nodes=()), "no node", "add Node"),
    "netfilter to masquerade what goes past it": (
        lambda: Options(host_routing="bpf", masquerade="iptables"),
        "netfilter never sees",
        "masquerade='bpf'",
    ),
    "a pod on an unknown node": (
        lambda: Topology(name="t", nodes=ALPHA, pods=(Pod("p", node="alhpa"),)),
        "'alhpa' does not exist",
        "did you mean 'alpha'?",
    ),
    "two nodes of one name": (lambda: Topology(name="t", nodes=ALPHA * 2), "two nodes", "rename"),
    "two pods of one name": (
        lambda: Topology(name="t", nodes=ALPHA, pods=(Pod("p", node="alpha"),) * 2),
        "two pods",
        "rename",
    ),
    "a pod named like a node": (
        lambda: Topology(name="t", nodes=ALPHA, pods=(Pod("alpha", node="alpha"),)),
        "same name",
        "rename",
    ),
    "a node name longer than an interface": (
        lambda: Node("a-very-long-node-name"),
        "no network interface",
        "15 bytes",
    ),
    "a node name with a slash": (lambda: Node("a/b"), "no network interface", "without '/'"),
    "a pod name with a space": (lambda: Pod("a b", node="alpha"), "not a DNS name", "lower-case"),
    "overlapping pod CIDRs": (
        lambda: Topology(name="t", nodes=(Node("a"), Node("b", pod_cidr="10.0.1.128/25"))),
        "overlaps",
        "own pod_cidr",
    ),
    "a pod CIDR over the underlay": (
        lambda: Topology(name="t", nodes=(Node("a", pod_cidr="172.30.0.0/16"),)),
        "overlaps",
        "apart from underlay_cidr",
    ),
    "a pod CIDR in which two pods could have one endpoint id": (
        lambda: Node("a", pod_cidr="10.0.0.0/15"),
        "unusable size",
        "from 16 to 27",
    ),
    "a network that is none": (lambda: Node("a", pod_cidr="10.0.0/33"), "no IPv4 network", "/24"),
    "an address outside the CIDR": (
        lambda: Topology(name="t", nodes=ALPHA, pods=(Pod("p", node="alpha", address="10.9.9.9"),)),
        "not free",
        "choose one from",
    ),
    "a node with the gateway's address": (
        lambda: Topology(name="t", nodes=(Node("a", address="172.30.0.254"),)),
        "the gateway's",
        "another address inside 172.30.0.0/24",
    ),
    "a node with the broadcast address": (
        lambda: Topology(name="t", nodes=(Node("a", address="172.30.0.255"),)),
        "the network's own",
        "another address",
    ),
    "a link to nowhere": (
        lambda: Topology(name="t", nodes=ALPHA, links=(Link("alpha", "bta"),)),
        "'bta' does not exist",
        "alpha",
    ),
    "a negative delay": (lambda: Link("a", "b", delay_ms=-1), "impossible", "positive"),
    "an unknown routing mode": (lambda: Options(routing="vxlam"), "'vxlam'", "vxlan"),
    "more pods than addresses": (
        lambda: Topology(
            name="t",
            nodes=(Node("a", pod_cidr="10.1.0.0/27"),),
            pods=tuple(Pod(f"p{n}", node="a") for n in range(30)),
        ),
        "do not fit",
        "larger",
    ),
}


@pytest.mark.parametrize(("build", "cause", "hint"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_description_is_refused(build, cause, hint):
    with pytest.raises(TopologyError) as caught:
        build()
    assert cause in caught.value.message
    assert hint in caught.value.hint


def test_description_survives_json():
    topology = Topology(
        name="t",
        nodes=(Node("a"), Node("b")),
        pods=(Pod("p", node="a", labels={"k": "v"}),),
        links=(Link("a", "b", delay_ms=1),),
        options=Options(routing="native"),
    )
    assert Topology.from_json(topology.to_json()) == topology


WORDS = {
    "a choice": ({"routing": "native"}, Options(routing="native")),
    "a truth": ({"custom_calls": "true"}, Options(custom_calls=True)),
    "a number": ({"mtu": "1400"}, Options(mtu=1400)),
    "a capacity": ({"ct_tcp_max": "131072"}, Options(ct_tcp_max=131_072)),
    "a list": (
        {"masquerade_exceptions": "10.1.0.0/16,10.2.0.0/16"},
        Options(masquerade_exceptions=("10.1.0.0/16", "10.2.0.0/16")),
    ),
    "nothing": ({}, Options()),
}


@pytest.mark.parametrize(("words", "options"), WORDS.values(), ids=WORDS.keys())
def test_options_said_in_words(words, options):
    assert Options().with_words(words) == options


REFUSED_WORDS = {
    "an unknown option": ({"rooting": "native"}, "'rooting' is unknown", "did you mean 'routing'?"),
    "a truth that is none": ({"prefilter": "yes"}, "'yes'", "true or false"),
    "a table too small": ({"ct_tcp_max": "10"}, "ct_tcp_max: 10", "1024 to"),
    "a number that is none": ({"mtu": "big"}, "'big' is no number", "1500"),
    "a network that is none": ({"native_routing_cidr": "10.0.0.1/8"}, "10.0.0.1/8", "10.0.1.0/24"),
}


@pytest.mark.parametrize(
    ("words", "problem", "hint"), REFUSED_WORDS.values(), ids=REFUSED_WORDS.keys()
)
def test_impossible_words_are_refused(words, problem, hint):
    with pytest.raises(TopologyError) as error:
        Options().with_words(words)
    assert problem in error.value.message
    assert hint in error.value.hint


def test_options_with_lists_survive_json():
    options = Options(masquerade_exceptions=("10.1.0.0/16",), native_routing_cidr="10.0.0.0/8")
    described = Topology(name="t", nodes=(Node("a"),), options=options)
    assert Topology.from_json(json.loads(json.dumps(described.to_json()))) == described
