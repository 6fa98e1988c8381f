"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy of ``cilium.io/v2``, layers 3 and 4.

What needs a proxy or a name server (layer 7, toFQDNs) is read and refused by name.
Source: Cilium ``pkg/policy/api`` (rule sanitisation).
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.k8s.common import TOP_LEVEL, read_meta, read_port_name, read_selector
from lab.k8s.objects import Meta, PolicyObject
from lab.k8s.policies import read_block
from lab.k8s.tree import Item, words
from lab.names import did_you_mean
from lab.policy.objects import CiliumPolicy, CiliumRule, IPBlock, Port, Selector

ENTITIES = words(
    "all world cluster host remote-node init health unmanaged kube-apiserver ingress none"
)

ICMP_TYPES = {
    "EchoReply": 0,
    "DestinationUnreachable": 3,
    "Redirect": 5,
    "Echo": 8,
    "EchoRequest": 8,
    "RouterAdvertisement": 9,
    "RouterSelection": 10,
    "TimeExceeded": 11,
    "ParameterProblem": 12,
    "Timestamp": 13,
    "TimestampReply": 14,
    "Photuris": 40,
    "ExtendedEchoRequest": 42,
    "ExtendedEchoReply": 43,
}
"""Names that Cilium knows for ICMPv4 types."""

_NOT_YET = {
    "FQDNs": "names need the DNS proxy, which the lab does not have",
    "Services": "write toEndpoints with the labels of the service's pods",
    "Groups": "provider groups need a cloud's API; write CIDRs",
    "Nodes": "write fromEntities/toEntities with 'host' and 'remote-node'",
}

_SECTIONS = words("ingress ingressDeny egress egressDeny")


def read_cilium_policy(document: Item) -> PolicyObject:
    """Read one object of either kind: ``spec``, ``specs`` or both.

    Raises:
        InputError: what Cilium's agent would refuse, and what the lab cannot enforce.
    """
    fields = document.fields(*TOP_LEVEL, "specs")
    kind = fields["kind"].text()
    clusterwide = kind == "CiliumClusterwideNetworkPolicy"
    meta = read_meta(fields.get("metadata"), document, namespaced=not clusterwide)
    written = [fields["spec"]] if "spec" in fields else []
    written += fields["specs"].items() if "specs" in fields else ()
    if not written:
        document.fail("spec is missing", "add 'spec:' with an 'endpointSelector:'")
    namespace = None if clusterwide else meta.namespace
    return PolicyObject(kind, meta, tuple(_read_spec(item, meta, namespace) for item in written))


def _read_spec(item: Item, meta: Meta, namespace: str | None) -> CiliumPolicy:
    fields = item.fields(
        *_SECTIONS, "endpointSelector", "nodeSelector", "enableDefaultDeny", "description", "labels"
    )
    # read and refused by name: a policy that is silently not enforced would be worse than none
    if "nodeSelector" in fields:
        fields["nodeSelector"].fail(
            "policies for nodes (the host firewall) are not enforced yet",
            "select pods with 'endpointSelector:'",
        )
    if "endpointSelector" not in fields:
        item.fail("endpointSelector is missing", "write 'endpointSelector: {}' to select all pods")
    default = {}
    if "enableDefaultDeny" in fields:
        flags = fields["enableDefaultDeny"].fields("ingress", "egress")
        default = {name: flag.truth() for name, flag in flags.items()}
    rules = {
        name: tuple(_read_rule(rule, name) for rule in fields[name].items())
        for name in _SECTIONS
        if name in fields
    }
    return CiliumPolicy(
        name=meta.name,
        namespace=namespace,
        endpoint_selector=read_selector(fields["endpointSelector"], sources=True),
        ingress=rules.get("ingress", ()),
        ingress_deny=rules.get("ingressDeny", ()),
        egress=rules.get("egress", ()),
        egress_deny=rules.get("egressDeny", ()),
        default_deny_ingress=default.get("ingress"),
        default_deny_egress=default.get("egress"),
    )


def _read_rule(item: Item, section: str) -> CiliumRule:
    side = "from" if section.startswith("ingress") else "to"
    known = ["Endpoints", "Requires", "CIDR", "CIDRSet", "Entities", *_NOT_YET]
    fields = item.fields(*(side + name for name in known), "toPorts", "icmps", "authentication")
    for name, remedy in _NOT_YET.items():
        if side + name in fields:
            fields[side + name].fail(f"{side + name} is not enforced by the lab", remedy)
    if "authentication" in fields:
        fields["authentication"].fail(
            "mutual authentication is not enforced by the lab", "remove the block"
        )
    if "toPorts" in fields and "icmps" in fields:
        fields["icmps"].fail("icmps cannot stand beside toPorts", "make two rules of it")
    _refuse_combinations(item, fields, side)
    endpoints = fields.get(f"{side}Endpoints")
    requires = fields.get(f"{side}Requires")
    entities = fields.get(f"{side}Entities")
    return CiliumRule(
        endpoints=None if endpoints is None else _read_selectors(endpoints),
        requires=() if requires is None else _read_selectors(requires),
        entities=None
        if entities is None
        else tuple(entity.choice(ENTITIES) for entity in entities.items()),
        cidrs=_read_cidrs(fields, side),
        ports=_read_ports(fields["toPorts"]) if "toPorts" in fields else None,
        icmp_types=_read_icmps(fields["icmps"]) if "icmps" in fields else None,
    )


def _refuse_combinations(item: Item, fields: dict[str, Item], side: str) -> None:
    used = [
        side + name
        # not Requires: it narrows the others and admits nobody by itself
        for name in ("Endpoints", "CIDR", "CIDRSet", "Entities")
        # an empty list is written, and selects nobody: it does not count as a second kind of peer
        if side + name in fields and fields[side + name].items()
    ]
    if len(used) > 1:
        item.fail(f"{used[0]} and {used[1]} cannot be combined", "make two rules of it")


def _read_selectors(item: Item) -> tuple[Selector, ...]:
    return tuple(read_selector(part, sources=True) for part in item.items())


def _read_cidrs(fields: dict[str, Item], side: str) -> tuple[IPBlock, ...] | None:
    plain, sets = fields.get(f"{side}CIDR"), fields.get(f"{side}CIDRSet")
    if plain is None and sets is None:
        return None
    blocks = [IPBlock(part.cidr()) for part in (plain.items() if plain else ())]
    for part in sets.items() if sets else ():
        written = part.fields("cidr", "except", "cidrGroupRef", "cidrGroupSelector")
        for name in ("cidrGroupRef", "cidrGroupSelector"):
            if name in written:
                written[name].fail("CIDR groups are not read by the lab", "write the CIDRs out")
        blocks.append(read_block(part))
    return tuple(blocks)


@dataclass(frozen=True, slots=True)
class _Part:
    # names of layer-7 and TLS fields of toPorts, each with what it would need
    name: str
    needs: str


_PROXY_PARTS = (
    _Part("rules", "layer-7 rules need the proxy"),
    _Part("terminatingTLS", "TLS interception needs the proxy"),
    _Part("originatingTLS", "TLS interception needs the proxy"),
    _Part("serverNames", "server names need the proxy"),
    _Part("listener", "a listener needs the proxy"),
)


def _read_ports(item: Item) -> tuple[Port, ...]:
    found: list[Port] = []
    for entry in item.items():
        fields = entry.fields("ports", *(part.name for part in _PROXY_PARTS))
        for part in _PROXY_PARTS:
            if part.name in fields:
                fields[part.name].fail(
                    f"{part.needs}, which the lab does not have yet",
                    "remove the block to enforce the ports alone",
                )
        if "ports" not in fields or not fields["ports"].items():
            entry.fail("ports is missing", "add 'ports:' with at least one port")
        found += [_read_one_port(port) for port in fields["ports"].items()]
    return tuple(found)


def _read_one_port(item: Item) -> Port:
    fields = item.fields("port", "endPort", "protocol")
    if "port" not in fields:
        item.fail("port is missing", "add 'port: \"80\"'")
    protocol = "ANY"
    if "protocol" in fields:
        known = ("TCP", "UDP", "SCTP", "ANY")
        # as ParseL4Proto() of Cilium does
        word = fields["protocol"].text().upper()
        if word not in known:
            fields["protocol"].fail(
                f"protocol {fields['protocol'].value!r} is unknown", did_you_mean(word, known)
            )
        protocol = word
    # Cilium writes numbers of ports as text, too
    text = fields["port"].text()
    if not text.isdecimal():
        return Port(protocol, read_port_name(fields["port"]))
    number = int(text)
    if number > 65535:
        fields["port"].fail(f"{number} is out of range", "use 0 to 65535; 0 is every port")
    if "endPort" not in fields:
        return Port(protocol, number)
    return Port(protocol, number, fields["endPort"].number(number, 65535))


def _read_icmps(item: Item) -> tuple[int, ...]:
    found: list[int] = []
    for entry in item.items():
        fields = entry.fields("fields")
        for part in fields["fields"].items() if "fields" in fields else ():
            written = part.fields("family", "type")
            if "family" in written and written["family"].choice(("IPv4", "IPv6")) == "IPv6":
                written["family"].fail("ICMPv6 needs IPv6, which pods do not have", "use IPv4")
            if "type" not in written:
                part.fail("type is missing", "add 'type: 8' (echo request)")
            kind = written["type"]
            if isinstance(kind.value, str):
                found.append(ICMP_TYPES[kind.choice(ICMP_TYPES)])
            else:
                found.append(kind.number(0, 255))
    return tuple(found)
