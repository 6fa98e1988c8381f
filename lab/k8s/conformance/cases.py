"""The cases: policies, and what they must do to flows.

A flow is ``FROM > TO PORT[/PROTOCOL] allow`` or ``... deny REASON``. Ends are pods, ``svc:NAME``,
``np:NODE:SERVICE`` (its node port there), ``node:NODE``, ``world`` (203.0.113.10) and ``gateway``
(172.30.0.254, outside too). Names: cilium connectivity test.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.k8s.conformance.cluster import NAMESPACE

ECHO_SAME, ECHO_OTHER = "echo-same-node", "echo-other-node"


@dataclass(frozen=True, slots=True)
class Case:
    """One named test.

    Attributes:
        name: as in Cilium's suite.
        policies: manifests to apply on top of the pods.
        flows: what must come of them.
    """

    name: str
    policies: str = ""
    flows: tuple[str, ...] = ()


def cnp(name: str, spec: str) -> str:
    """Return a CiliumNetworkPolicy in flow style."""
    return (
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n"
        f"metadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec: {spec}\n"
    )


def knp(name: str, spec: str) -> str:
    """Return a NetworkPolicy in flow style."""
    return (
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        f"metadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec: {spec}\n"
    )


# pieces of policies as Cilium's suite names them, so that a case reads as its manifest does
ALL = "endpointSelector: {}"
CLIENTS = "endpointSelector: {matchLabels: {kind: client}}"
CLIENT = "endpointSelector: {matchLabels: {name: client}}"
ECHOS = "endpointSelector: {matchLabels: {kind: echo}}"
P8080 = 'toPorts: [{ports: [{port: "8080", protocol: TCP}]}]'
RANGE = 'toPorts: [{ports: [{port: "8000", endPort: 8100, protocol: TCP}]}]'
NAMED = "toPorts: [{ports: [{port: http-8080, protocol: TCP}]}]"
TO_ECHO = "toEndpoints: [{matchLabels: {kind: echo}}]"
TO_SA = "toEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: echo-same-node}}]"
ECHO_EXPRESSION = "[{matchExpressions: [{key: kind, operator: In, values: [echo]}]}]"
FROM_OTHER = "fromEndpoints: [{matchLabels: {other: client}}]"
PING = "icmps: [{fields: [{type: 8, family: IPv4}]}]"
# beside deny rules, which isolate what they select: all that they spare is to pass
ALLOW_ALL = "ingress: [{fromEntities: [all]}], egress: [{toEntities: [all]}]"

# 133 and 181: DROP_POLICY, no entry allows it, and DROP_POLICY_DENY, an entry forbids it
BASIC = (
    "client > echo-same-node 8080 allow",
    "client > echo-other-node 8080 allow",
    "client > client2 8/icmp allow",
    "client > client3 8/icmp allow",
    "client > svc:echo-same-node 8080 allow",
    "client > svc:echo-other-node 8080 allow",
    "client > node:alpha 8/icmp allow",
    "client > node:beta 8/icmp allow",
    "client > world 8/icmp allow",
    "client > world 80 allow",
    "node:alpha > echo-same-node 8080 allow",
)
ONLY_ECHO = (
    "client > echo-same-node 8080 allow",
    "client > echo-other-node 8080 allow",
    "client > client2 8/icmp deny 133",
    "client > world 80 deny 133",
)
ONLY_OTHER = (
    "client2 > echo-same-node 8080 allow",
    "client2 > echo-other-node 8080 allow",
    "client > echo-same-node 8080 deny 133",
    "client3 > echo-same-node 8080 deny 133",
)
ECHO_REFUSED = (
    "client > echo-same-node 8080 deny 181",
    "client > echo-other-node 8080 deny 181",
    "client > client2 8/icmp allow",
    "client > world 80 allow",
)
SAME_REFUSED = (
    "client > echo-same-node 8080 deny 181",
    "client > echo-other-node 8080 allow",
)
INGRESS_DENIED = (
    "client > echo-same-node 8080 deny 133",
    "client > echo-other-node 8080 deny 133",
    "client > world 80 allow",
)
EGRESS_DENIED = (
    "client > echo-same-node 8080 deny 133",
    "client > world 80 deny 133",
    "world > echo-same-node 8080 allow",
)

CASES = (
    Case("no-policies", "", BASIC),
    Case(
        "no-policies-from-outside",
        "",
        ("world > echo-same-node 8080 allow", "world > echo-other-node 8080 allow"),
    ),
    Case(
        "no-policies-extra",
        "",
        (
            "client > np:alpha:echo-same-node 30081 allow",
            "client > np:beta:echo-other-node 30082 allow",
            "client > np:beta:echo-same-node 30081 allow",
        ),
    ),
    Case(
        "allow-all-except-world",
        cnp(
            "p",
            f"{{{ALL}, ingress: [{{fromEntities: [cluster]}}], "
            "egress: [{toEntities: [cluster]}]}",
        ),
        (
            "client > echo-same-node 8080 allow",
            "client > echo-other-node 8080 allow",
            "client > node:beta 8/icmp allow",
            "client > world 80 deny 133",
            "world > echo-same-node 8080 deny 133",
        ),
    ),
    # an empty rule of Cilium's admits nobody; one of a NetworkPolicy would admit everybody
    Case("all-ingress-deny", cnp("p", f"{{{ALL}, ingress: [{{}}]}}"), INGRESS_DENIED),
    Case(
        "all-ingress-deny-knp",
        knp("p", "{podSelector: {}, policyTypes: [Ingress]}"),
        INGRESS_DENIED,
    ),
    Case(
        "all-ingress-deny-from-outside",
        cnp("p", f"{{{ALL}, ingress: [{{}}]}}"),
        ("world > echo-same-node 8080 deny 133", "world > echo-other-node 8080 deny 133"),
    ),
    Case("all-egress-deny", cnp("p", f"{{{ALL}, egress: [{{}}]}}"), EGRESS_DENIED),
    Case(
        "all-egress-deny-knp", knp("p", "{podSelector: {}, policyTypes: [Egress]}"), EGRESS_DENIED
    ),
    Case(
        "all-entities-deny",
        cnp(
            "p",
            f"{{{ALL}, ingressDeny: [{{fromEntities: [all]}}], "
            f"egressDeny: [{{toEntities: [all]}}], {ALLOW_ALL}}}",
        ),
        (
            "client > echo-same-node 8080 deny 181",
            "client > world 80 deny 181",
            "world > echo-same-node 8080 deny 181",
        ),
    ),
    Case(
        "cluster-entity",
        cnp("p", f"{{{ECHOS}, ingress: [{{fromEntities: [cluster]}}]}}"),
        (
            "client > echo-same-node 8080 allow",
            "client > echo-other-node 8080 allow",
            "world > echo-same-node 8080 deny 133",
        ),
    ),
    Case(
        "host-entity-egress",
        # a pod's own node is its host, any other one a remote node
        cnp("p", f"{{{CLIENTS}, egress: [{{toEntities: [host]}}]}}"),
        (
            "client > node:alpha 8/icmp allow",
            "client > node:beta 8/icmp deny 133",
            "client > echo-same-node 8080 deny 133",
        ),
    ),
    Case(
        "host-entity-ingress",
        cnp("p", f"{{{ECHOS}, ingress: [{{fromEntities: [host]}}]}}"),
        (
            "node:alpha > echo-same-node 8080 allow",
            "client > echo-same-node 8080 deny 133",
        ),
    ),
    Case(
        "policy-local-cluster",
        cnp(
            "p",
            f"{{{ECHOS}, ingress: [{{fromEndpoints: [{{matchLabels: "
            "{io.cilium.k8s.policy.cluster: default}}]}]}",
        ),
        ("client > echo-same-node 8080 allow", "world > echo-same-node 8080 deny 133"),
    ),
    Case(
        "client-ingress",
        cnp("p", f"{{{CLIENT}, ingress: [{{{FROM_OTHER}}}]}}"),
        ("client2 > client 8/icmp allow", "client3 > client 8/icmp deny 133"),
    ),
    Case(
        "client-ingress-knp",
        knp(
            "p",
            "{podSelector: {matchLabels: {name: client}}, ingress: [{from: [{podSelector: "
            "{matchLabels: {other: client}}}]}]}",
        ),
        ("client2 > client 8/icmp allow", "client3 > client 8/icmp deny 133"),
    ),
    Case(
        "client-ingress-icmp",
        cnp("p", f"{{{CLIENT}, ingress: [{{{FROM_OTHER}, {PING}}}]}}"),
        (
            "client2 > client 8/icmp allow",
            "client3 > client 8/icmp deny 133",
            "client2 > client 8080 deny 133",
        ),
    ),
    Case(
        "client-ingress-from-other-client-icmp-deny",
        cnp("p", f"{{{CLIENT}, ingressDeny: [{{{FROM_OTHER}, {PING}}}], {ALLOW_ALL}}}"),
        ("client2 > client 8/icmp deny 181", "client3 > client 8/icmp allow"),
    ),
    Case("client-egress", cnp("p", f"{{{CLIENT}, egress: [{{{TO_ECHO}, {P8080}}}]}}"), ONLY_ECHO),
    Case(
        "client-egress-port-range",
        cnp("p", f"{{{CLIENT}, egress: [{{{TO_ECHO}, {RANGE}}}]}}"),
        ONLY_ECHO,
    ),
    Case(
        "client-egress-knp",
        knp(
            "p",
            "{podSelector: {matchLabels: {name: client}}, policyTypes: [Egress], egress: "
            "[{to: [{podSelector: {matchLabels: {kind: echo}}}], ports: [{port: 8080}]}]}",
        ),
        ONLY_ECHO,
    ),
    Case(
        "client-egress-expression",
        cnp("p", f"{{{CLIENT}, egress: [{{toEndpoints: {ECHO_EXPRESSION}, {P8080}}}]}}"),
        ONLY_ECHO,
    ),
    Case(
        "client-egress-expression-port-range",
        cnp("p", f"{{{CLIENT}, egress: [{{toEndpoints: {ECHO_EXPRESSION}, {RANGE}}}]}}"),
        ONLY_ECHO,
    ),
    Case(
        "client-egress-expression-knp",
        knp(
            "p",
            "{podSelector: {matchLabels: {name: client}}, policyTypes: [Egress], egress: "
            "[{to: [{podSelector: {matchExpressions: [{key: kind, operator: In, values: [echo]}]}"
            "}], ports: [{port: 8080}]}]}",
        ),
        ONLY_ECHO,
    ),
    Case(
        "client-egress-to-echo-service-account",
        cnp("p", f"{{{CLIENT}, egress: [{{{TO_SA}, {P8080}}}]}}"),
        (
            "client > echo-same-node 8080 allow",
            "client > echo-other-node 8080 deny 133",
        ),
    ),
    Case(
        "client-egress-to-echo-named-port",
        cnp("p", f"{{{CLIENT}, egress: [{{{TO_ECHO}, {NAMED}}}]}}"),
        ONLY_ECHO,
    ),
    Case(
        "echo-ingress", cnp("p", f"{{{ECHOS}, ingress: [{{{FROM_OTHER}, {P8080}}}]}}"), ONLY_OTHER
    ),
    Case(
        "echo-ingress-port-range",
        cnp("p", f"{{{ECHOS}, ingress: [{{{FROM_OTHER}, {RANGE}}}]}}"),
        ONLY_OTHER,
    ),
    Case(
        "echo-ingress-knp",
        knp(
            "p",
            "{podSelector: {matchLabels: {kind: echo}}, ingress: [{from: [{podSelector: "
            "{matchLabels: {other: client}}}], ports: [{port: http-8080}]}]}",
        ),
        ONLY_OTHER,
    ),
    Case(
        "echo-ingress-from-outside",
        cnp("p", f"{{{ECHOS}, ingress: [{{fromEntities: [world], {P8080}}}]}}"),
        (
            "world > echo-same-node 8080 allow",
            "world > echo-other-node 8080 allow",
            "client > echo-same-node 8080 deny 133",
        ),
    ),
    Case(
        "echo-ingress-from-other-client-deny",
        cnp("p", f"{{{ECHOS}, ingressDeny: [{{{FROM_OTHER}, {P8080}}}], {ALLOW_ALL}}}"),
        (
            "client2 > echo-same-node 8080 deny 181",
            "client2 > echo-other-node 8080 deny 181",
            "client > echo-same-node 8080 allow",
        ),
    ),
    Case(
        "client-egress-to-echo-deny",
        cnp("p", f"{{{CLIENT}, egressDeny: [{{{TO_ECHO}, {P8080}}}], {ALLOW_ALL}}}"),
        ECHO_REFUSED,
    ),
    Case(
        "client-egress-to-echo-deny-port-range",
        cnp("p", f"{{{CLIENT}, egressDeny: [{{{TO_ECHO}, {RANGE}}}], {ALLOW_ALL}}}"),
        ECHO_REFUSED,
    ),
    Case(
        "client-egress-to-echo-expression-deny",
        cnp(
            "p",
            f"{{{CLIENT}, egressDeny: [{{toEndpoints: {ECHO_EXPRESSION}, {P8080}}}], {ALLOW_ALL}}}",
        ),
        ECHO_REFUSED,
    ),
    Case(
        "client-egress-to-echo-service-account-deny",
        cnp("p", f"{{{CLIENT}, egressDeny: [{{{TO_SA}, {P8080}}}], {ALLOW_ALL}}}"),
        SAME_REFUSED,
    ),
    Case(
        "client-egress-to-echo-named-port-deny",
        cnp("p", f"{{{CLIENT}, egressDeny: [{{{TO_ECHO}, {NAMED}}}], {ALLOW_ALL}}}"),
        ECHO_REFUSED,
    ),
    Case(
        "client-egress-to-cidr-deny",
        cnp(
            "p",
            f"{{{CLIENT}, egressDeny: [{{toCIDRSet: [{{cidr: 203.0.113.0/24}}]}}], {ALLOW_ALL}}}",
        ),
        (
            "client > world 80 deny 181",
            "client > gateway 8/icmp allow",
            "client > echo-same-node 8080 allow",
        ),
    ),
    Case(
        "client-egress-to-cidr-deny-default",
        # with no allow rule beside it: a deny rule alone isolates what it selects
        cnp("p", f"{{{CLIENT}, egressDeny: [{{toCIDR: [203.0.113.10/32]}}]}}"),
        ("client > world 80 deny 181", "client > gateway 8/icmp deny 133"),
    ),
    Case(
        "to-entities-world",
        cnp("p", f"{{{CLIENT}, egress: [{{toEntities: [world]}}]}}"),
        ("client > world 80 allow", "client > echo-same-node 8080 deny 133"),
    ),
    Case(
        "to-entities-world-port-range",
        cnp(
            "p",
            f"{{{CLIENT}, egress: [{{toEntities: [world], toPorts: [{{ports: "
            '[{port: "80", endPort: 90, protocol: TCP}]}]}]}',
        ),
        (
            "client > world 80 allow",
            "client > world 90 allow",
            "client > world 91 deny 133",
        ),
    ),
    Case(
        "to-cidr-external",
        cnp("p", f"{{{CLIENT}, egress: [{{toCIDR: [203.0.113.10/32]}}]}}"),
        ("client > world 80 allow", "client > gateway 8/icmp deny 133"),
    ),
    Case(
        "to-cidr-external-knp",
        knp(
            "p",
            "{podSelector: {matchLabels: {name: client}}, policyTypes: [Egress], egress: "
            "[{to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}}]}]}",
        ),
        ("client > world 80 allow", "client > gateway 8/icmp deny 133"),
    ),
    Case(
        "north-south-loadbalancing",
        "",
        (
            "world > np:alpha:echo-same-node 30081 allow",
            "world > np:beta:echo-same-node 30081 allow",
            "world > np:alpha:echo-other-node 30082 allow",
            "world > np:beta:echo-other-node 30082 allow",
        ),
    ),
    Case("pod-to-itself-via-service", "", (f"{ECHO_SAME} > svc:{ECHO_SAME} 8080 allow",)),
)
