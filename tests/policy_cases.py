"""Published NetworkPolicy cases as data: manifests and the truth table they must lead to.

``E2E``: what the Kubernetes end-to-end suite for network policies asserts (sig-network, Netpol).
``RECIPES``: the commonly published recipes. Manifests are written anew in the shortest form.

A truth table begins with everything allowed; its lines are applied in order:
``PORT[/PROTOCOL] deny|allow FROM TO``, names may hold ``*``. A pod always reaches itself.
"""

from dataclasses import dataclass
from fnmatch import fnmatch

LETTERS = ("a", "b", "c")
NAMESPACES = ("x", "y", "z")


def _pod(namespace, name):
    ports = "".join(
        f"\n    - {{containerPort: {number}, name: serve-{number}-{protocol.lower()}, "
        f"protocol: {protocol}}}"
        for number in (80, 81)
        for protocol in ("TCP", "UDP")
    )
    return (
        f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, "
        f"labels: {{pod: {name}}}}}\nspec:\n  containers:\n  - name: c\n    image: agnhost\n"
        f"    ports:{ports}\n"
    )


def _namespace(name):
    return (
        f"---\napiVersion: v1\nkind: Namespace\n"
        f"metadata: {{name: {name}, labels: {{ns: {name}}}}}\n"
    )


CLUSTER = "".join(_namespace(n) for n in NAMESPACES) + "".join(
    _pod(namespace, name) for namespace in NAMESPACES for name in LETTERS
)
"""Three namespaces with three pods each, as in the end-to-end suite; x/b is 10.0.2.10."""


def np(spec, namespace="x", name="p"):
    return (
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )


@dataclass(frozen=True)
class Case:
    manifests: str
    table: tuple[str, ...]

    @property
    def ports(self):
        """Ports and protocols that the table speaks of, with 80/TCP always."""
        found = {("TCP", 80)}
        for line in self.table:
            number, _, protocol = line.split()[0].partition("/")
            found.add(((protocol or "tcp").upper(), int(number)))
        return sorted(found)

    def allows(self, protocol, port, source, destination):
        """What the table says of one flow."""
        verdict = True
        for line in self.table:
            where, word, start, end = line.split()
            number, _, name = where.partition("/")
            if (int(number), (name or "tcp").upper()) != (port, protocol):
                continue
            if fnmatch(source, start) and fnmatch(destination, end):
                verdict = word == "allow"
        return verdict or source == destination


A = "podSelector: {matchLabels: {pod: a}}"
ALL = "podSelector: {}"


def case(*parts):
    """Manifests first, then the lines of the truth table."""
    manifests = "".join(part for part in parts if part.startswith("---"))
    return Case(manifests, tuple(part for part in parts if not part.startswith("---")))


def ns(name):
    return f"namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}"


NOT_X = (
    "namespaceSelector: {matchExpressions: "
    "[{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]}"
)
POD_B = "podSelector: {matchLabels: {pod: b}}"
B_OR_C = "podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}"

E2E = {
    "default-deny-ingress": case(np(f"{{{ALL}, policyTypes: [Ingress]}}"), "80 deny * x/*"),
    "default-deny-all": case(
        np(f"{{{ALL}, policyTypes: [Ingress, Egress]}}"), "80 deny * x/*", "80 deny x/* *"
    ),
    "traffic from a pod of the server's namespace": case(
        np(f"{{{A}, ingress: [{{from: [{{{POD_B}}}]}}]}}"), "80 deny * x/a", "80 allow x/b x/a"
    ),
    "ingress allowed for one target": case(
        np(f"{{{ALL}, policyTypes: [Ingress]}}", name="deny"),
        np(f"{{{A}, ingress: [{{from: [{{podSelector: {{}}, namespaceSelector: {{}}}}]}}]}}"),
        "80 deny * x/*",
        "80 allow * x/a",
    ),
    "traffic from pods of all namespaces": case(
        np(f"{{{A}, ingress: [{{from: [{{namespaceSelector: {{}}}}]}}]}}"),
    ),
    "traffic only from another namespace": case(
        np(f"{{{A}, ingress: [{{from: [{{{ns('y')}}}]}}]}}"), "80 deny * x/a", "80 allow y/* x/a"
    ),
    "pod selector with expressions": case(
        np(
            f"{{{A}, ingress: [{{from: [{{podSelector: {{matchExpressions: "
            "[{key: pod, operator: In, values: [b]}]}}]}]}"
        ),
        "80 deny * x/a",
        "80 allow x/b x/a",
    ),
    "namespace selector with expressions": case(
        np(
            f"{{{A}, ingress: [{{from: [{{namespaceSelector: {{matchExpressions: "
            "[{key: kubernetes.io/metadata.name, operator: In, values: [y]}]}}]}]}"
        ),
        "80 deny * x/a",
        "80 allow y/* x/a",
    ),
    "pod selector or namespace selector": case(
        np(f"{{{A}, ingress: [{{from: [{{{NOT_X}}}, {{{POD_B}}}]}}]}}"), "80 deny x/c x/a"
    ),
    "pod selector and namespace selector": case(
        np(f"{{{A}, ingress: [{{from: [{{{NOT_X}, {POD_B}}}]}}]}}"),
        "80 deny * x/a",
        "80 allow y/b x/a",
        "80 allow z/b x/a",
    ),
    "several pods in several namespaces": case(
        np(f"{{{A}, ingress: [{{from: [{{{NOT_X}, {B_OR_C}}}]}}]}}"),
        "80 deny * x/a",
        "80 allow [yz]/[bc] x/a",
    ),
    "any of two pod selectors": case(
        np(
            f"{{{A}, ingress: [{{from: [{{{POD_B}}}, "
            "{podSelector: {matchLabels: {pod: c}}}]}]}"
        ),
        "80 deny * x/a",
        "80 allow x/[bc] x/a",
    ),
    "one pod of another namespace": case(
        np(
            f"{{{A}, ingress: [{{from: [{{{ns('y')}, "
            "podSelector: {matchLabels: {pod: a}}}]}]}"
        ),
        "80 deny * x/a",
        "80 allow y/a x/a",
    ),
    "policy by port": case(
        np(f"{{{A}, ingress: [{{from: [{{{ns('y')}}}], ports: [{{port: 81}}]}}]}}"),
        "80 deny * x/a",
        "81 deny * x/a",
        "81 allow y/* x/a",
    ),
    "stacked policies with overlapping selectors": case(
        np(f"{{{A}, ingress: [{{from: [{{{ns('y')}}}], ports: [{{port: 81}}]}}]}}", name="one"),
        np(f"{{{A}, ingress: [{{from: [{{{ns('y')}}}], ports: [{{port: 80}}]}}]}}", name="two"),
        "80 deny * x/a",
        "80 allow y/* x/a",
        "81 deny * x/a",
        "81 allow y/* x/a",
    ),
    "allow-all": case(np(f"{{{ALL}, ingress: [{{}}]}}"), "81 allow * *"),
    "ingress on one named port": case(
        np(f"{{{ALL}, ingress: [{{ports: [{{port: serve-81-tcp}}]}}]}}"),
        "80 deny * x/*",
        "81 allow * *",
    ),
    "ingress from a namespace on one named port": case(
        np(
            f"{{{A}, ingress: [{{from: [{{{ns('y')}}}], "
            "ports: [{port: serve-80-tcp, protocol: TCP}]}]}"
        ),
        "80 deny * x/a",
        "80 allow y/* x/a",
        "81 deny * x/a",
    ),
    "egress on one named port": case(
        np(f"{{{ALL}, policyTypes: [Egress], egress: [{{ports: [{{port: serve-80-tcp}}]}}]}}"),
        "81 deny x/* *",
    ),
    "ingress from a namespace by its own label": case(
        np(f"{{{A}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: y}}}}}}]}}]}}"),
        "80 deny * x/a",
        "80 allow y/* x/a",
    ),
    "a label nobody has": case(
        np(
            f"{{{A}, ingress: [{{from: [{{podSelector: "
            "{matchLabels: {pod: b, pod2: updated}}}]}]}"
        ),
        "80 deny * x/a",
    ),
    "ingress denied from other namespaces": case(
        np(f"{{{ALL}, ingress: [{{from: [{{podSelector: {{}}}}]}}]}}"),
        "80 deny [yz]/* x/*",
    ),
    "egress denied for one pod": case(np(f"{{{A}, policyTypes: [Egress]}}"), "80 deny x/a *"),
    "egress denied for a namespace": case(np(f"{{{ALL}, policyTypes: [Egress]}}"), "80 deny x/* *"),
    "ingress and egress together": case(
        np(
            f"{{{A}, policyTypes: [Ingress, Egress], ingress: [{{from: [{{{POD_B}}}]}}], "
            "egress: [{ports: [{port: 80}]}]}"
        ),
        "80 deny * x/a",
        "80 allow x/b x/a",
        "81 deny * x/a",
        "81 deny x/a *",
        "81 allow x/b x/a",
    ),
    "egress denied though the server allows it": case(
        np(
            f"{{{A}, policyTypes: [Egress], egress: [{{to: [{{{ns('y')}, "
            "podSelector: {matchLabels: {pod: a}}}]}]}"
        ),
        np(f"{{{A}, ingress: [{{from: [{{{ns('x')}, {A}}}]}}]}}", namespace="y", name="a"),
        np(
            "{podSelector: {matchLabels: {pod: b}}, "
            f"ingress: [{{from: [{{{ns('x')}, {A}}}]}}]}}",
            namespace="y",
            name="b",
        ),
        "80 deny x/a *",
        "80 deny * y/a",
        "80 deny * y/b",
        "80 allow x/a y/a",
    ),
    "egress to one pod of another namespace": case(
        np(
            f"{{{A}, policyTypes: [Egress], egress: [{{to: [{{{ns('y')}, "
            "podSelector: {matchLabels: {pod: a}}}]}]}"
        ),
        "80 deny x/a *",
        "80 allow x/a y/a",
    ),
    "every port of one protocol": case(
        np(f"{{{A}, ingress: [{{ports: [{{protocol: TCP}}]}}]}}"), "80/udp deny * x/a"
    ),
    "ingress allow-all beside a narrower policy": case(
        np(f"{{{ALL}, ingress: [{{ports: [{{port: 80}}]}}]}}", name="narrow"),
        np(f"{{{ALL}, ingress: [{{}}]}}", name="wide"),
        "81 allow * *",
    ),
    "ingress on one port only": case(
        np(f"{{{ALL}, ingress: [{{ports: [{{port: 80}}]}}]}}"), "81 deny * x/*"
    ),
    "egress allow-all beside a narrower policy": case(
        np(f"{{{ALL}, policyTypes: [Egress], egress: [{{ports: [{{port: 80}}]}}]}}", name="narrow"),
        np(f"{{{ALL}, policyTypes: [Egress], egress: [{{}}]}}", name="wide"),
        "81 allow * *",
    ),
    "egress to a pod by its address": case(
        np(
            f"{{{A}, policyTypes: [Egress], egress: "
            "[{to: [{ipBlock: {cidr: 10.0.2.10/32}}]}]}"
        ),
        "80 deny x/a *",
        "80 allow x/a x/b",
    ),
    "egress to a block except one address": case(
        np(
            f"{{{A}, policyTypes: [Egress], egress: "
            "[{to: [{ipBlock: {cidr: 10.0.0.0/16, except: [10.0.2.10/32]}}]}]}"
        ),
        "80 deny x/a x/b",
    ),
    "an excepted address allowed by another rule": case(
        np(
            f"{{{A}, policyTypes: [Egress], egress: "
            "[{to: [{ipBlock: {cidr: 10.0.2.0/24, except: [10.0.2.10/32]}}]}]}",
            name="one",
        ),
        np(
            f"{{{A}, policyTypes: [Egress], egress: "
            "[{to: [{ipBlock: {cidr: 10.0.2.10/32}}]}]}",
            name="two",
        ),
        "80 deny x/a [xyz]/*",
        "80 allow x/a x/b",
        "80 allow x/a y/[ac]",
        "80 allow x/a z/b",
    ),
    "ingress and egress controlled independently": case(
        np(f"{{{A}, policyTypes: [Egress], egress: [{{}}]}}", name="out"),
        np(f"{{{A}, policyTypes: [Ingress]}}", name="in"),
        "80 deny * x/a",
    ),
    "SCTP is not TCP": case(
        np(f"{{{A}, ingress: [{{ports: [{{port: 81, protocol: SCTP}}]}}]}}"),
        "80 deny * x/a",
        "81 deny * x/a",
        "80/sctp deny * x/a",
    ),
    "UDP on one port": case(
        np(f"{{{A}, ingress: [{{ports: [{{port: 80, protocol: UDP}}]}}]}}"),
        "80 deny * x/a",
        "81 deny * x/a",
        "81/udp deny * x/a",
        "80/udp allow * x/a",
    ),
    "a range of ports": case(
        np(f"{{{A}, policyTypes: [Egress], egress: [{{ports: [{{port: 81, endPort: 90}}]}}]}}"),
        "80 deny x/a *",
        "90 allow x/a *",
        "91 deny x/a *",
    ),
}

RECIPES = {
    "deny all traffic to an application": case(
        np("{podSelector: {matchLabels: {pod: a}}, ingress: []}"), "80 deny * x/a"
    ),
    "limit traffic to an application": case(
        np("{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{" + POD_B + "}]}]}"),
        "80 deny * x/a",
        "80 allow x/b x/a",
    ),
    "allow all traffic to an application": case(
        np("{podSelector: {}, ingress: []}", name="deny"),
        np("{podSelector: {matchLabels: {pod: a}}, ingress: [{}]}", name="allow"),
        "80 deny * x/[bc]",
    ),
    "deny all non-whitelisted traffic to a namespace": case(
        np("{podSelector: {}, ingress: []}"), "80 deny * x/*"
    ),
    "deny traffic from other namespaces": case(
        np("{podSelector: {matchLabels: }, ingress: [{from: [{podSelector: {}}]}]}"),
        "80 deny [yz]/* x/*",
    ),
    "allow traffic from all namespaces": case(
        np("{podSelector: {}, ingress: []}", name="deny"),
        np(f"{{{A}, ingress: [{{from: [{{namespaceSelector: {{}}}}]}}]}}", name="allow"),
        "80 deny * x/*",
        "80 allow * x/a",
    ),
    "allow traffic from a namespace": case(
        np(f"{{{A}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: z}}}}}}]}}]}}"),
        "80 deny * x/a",
        "80 allow z/* x/a",
    ),
    "allow traffic from some pods in another namespace": case(
        np(
            f"{{{A}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: z}}}}, "
            f"{POD_B}}}]}}]}}"
        ),
        "80 deny * x/a",
        "80 allow z/b x/a",
    ),
    "allow external traffic": case(np(f"{{{A}, ingress: [{{from: []}}]}}"), "80 allow * *"),
    "allow traffic only to a port": case(
        np(f"{{{A}, ingress: [{{ports: [{{port: 81}}], from: [{{{POD_B}}}]}}]}}"),
        "80 deny * x/a",
        "81 deny * x/a",
        "81 allow x/b x/a",
    ),
    "allow traffic with several selectors": case(
        np(
            f"{{{A}, ingress: [{{from: [{{{POD_B}}}, "
            "{podSelector: {matchLabels: {pod: c}}}]}]}"
        ),
        "80 deny * x/a",
        "80 allow x/[bc] x/a",
    ),
    "deny egress from an application": case(
        np(f"{{{A}, policyTypes: [Egress], egress: []}}"), "80 deny x/a *"
    ),
    "deny egress except DNS": case(
        np(
            f"{{{A}, policyTypes: [Egress], "
            "egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}]}"
        ),
        "80 deny x/a *",
        "53/udp allow x/a *",
        "53 allow x/a *",
    ),
    "deny all non-whitelisted traffic from a namespace": case(
        np("{podSelector: {}, policyTypes: [Egress]}"), "80 deny x/* *"
    ),
    "deny external egress": case(
        np(
            f"{{{A}, policyTypes: [Egress], egress: [{{ports: [{{port: 53, protocol: UDP}}]}}, "
            "{to: [{namespaceSelector: {}}]}]}"
        ),
        "53/udp allow * *",
    ),
}
