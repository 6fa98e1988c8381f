"""NetworkPolicy of ``networking.k8s.io/v1``, all of it."""

from __future__ import annotations

from ipaddress import IPv4Network

from lab.k8s.common import (
    TOP_LEVEL,
    read_meta,
    read_port,
    read_protocol,
    read_selector,
)
from lab.k8s.objects import PolicyObject
from lab.k8s.tree import Item
from lab.policy.objects import Direction, IPBlock, NetworkPolicy, NetworkRule, Peer, Port, Selector


def read_network_policy(document: Item) -> PolicyObject:
    """Read a NetworkPolicy.

    Raises:
        InputError: what an API server would refuse, with file, line and path.
    """
    fields = document.fields(*TOP_LEVEL)
    meta = read_meta(fields.get("metadata"), document)
    if "spec" not in fields:
        document.fail("spec is missing", "add 'spec:' with a 'podSelector:'")
    spec = fields["spec"].fields("podSelector", "ingress", "egress", "policyTypes")
    ingress = _read_rules(spec.get("ingress"), "from")
    egress = _read_rules(spec.get("egress"), "to")
    policy = NetworkPolicy(
        name=meta.name,
        namespace=meta.namespace,
        pod_selector=_read_subject(spec, fields["spec"]),
        ingress=ingress,
        egress=egress,
        directions=_read_types(spec, bool(egress)),
    )
    return PolicyObject("NetworkPolicy", meta, (policy,))


def _read_subject(spec: dict[str, Item], parent: Item) -> Selector:
    if "podSelector" not in spec:
        if "podSelector" in parent.mapping():
            return Selector()  # "podSelector:" with nothing behind it is the empty selector
        parent.fail("podSelector is missing", "write 'podSelector: {}' to select all pods")
    return read_selector(spec["podSelector"])


def _read_types(spec: dict[str, Item], has_egress: bool) -> frozenset[Direction]:
    if "policyTypes" not in spec or not spec["policyTypes"].items():
        # "default on the existence of ingress or egress rules": Ingress always, Egress if written
        found = {Direction.INGRESS}
        return frozenset(found | {Direction.EGRESS} if has_egress else found)
    words = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}
    items = spec["policyTypes"].items()
    return frozenset(words[item.choice(words)] for item in items)


def _read_rules(item: Item | None, peers: str) -> tuple[NetworkRule, ...]:
    rules = []
    for rule in item.items() if item else ():
        fields = rule.fields(peers, "ports")
        rules.append(
            NetworkRule(
                tuple(_read_peer(p) for p in fields[peers].items()) if peers in fields else (),
                tuple(_read_rule_port(p) for p in fields["ports"].items())
                if "ports" in fields
                else (),
            )
        )
    return tuple(rules)


def _read_peer(item: Item) -> Peer:
    written = item.mapping()
    item.fields("podSelector", "namespaceSelector", "ipBlock")
    # two selectors in one peer mean both at once; beside a network that would say nothing
    if "ipBlock" in written and len(written) > 1:
        item.fail(
            "ipBlock cannot stand beside a selector", "make two peers of it, each with its '- '"
        )
    if not written:
        item.fail("a peer must have a selector or an ipBlock", "remove '- {}', or write a selector")
    if "ipBlock" in written:
        return Peer(ip_block=read_block(written["ipBlock"]))
    selectors = {
        name: Selector() if part.value is None else read_selector(part)
        for name, part in written.items()
    }
    return Peer(
        pod_selector=selectors.get("podSelector"),
        namespace_selector=selectors.get("namespaceSelector"),
    )


def read_block(item: Item) -> IPBlock:
    """Read ``cidr`` and ``except``, each exception inside the network.

    Raises:
        InputError: no network, or an exception outside it.
    """
    fields = item.fields("cidr", "except")
    if "cidr" not in fields:
        item.fail("cidr is missing", "add 'cidr: 10.0.0.0/8'")
    cidr = fields["cidr"].cidr()
    holes = []
    for hole in fields["except"].items() if "except" in fields else ():
        inner = hole.cidr()
        if not IPv4Network(inner).subnet_of(IPv4Network(cidr)) or inner == cidr:
            hole.fail(f"{inner} is not a part of {cidr}", "an exception lies inside its cidr")
        holes.append(inner)
    return IPBlock(cidr, tuple(holes))


def _read_rule_port(item: Item) -> Port:
    fields = item.fields("protocol", "port", "endPort")
    protocol = read_protocol(fields.get("protocol"))
    if "port" not in fields:
        if "endPort" in fields:
            fields["endPort"].fail("endPort without port", "add 'port:', the first of the range")
        return Port(protocol)
    port = read_port(fields["port"])
    if "endPort" not in fields:
        return Port(protocol, port)
    if isinstance(port, str):
        fields["endPort"].fail("endPort beside a named port", "write the first port as a number")
    return Port(protocol, port, fields["endPort"].number(port, 65535))
