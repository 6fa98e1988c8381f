"""Manifests that are refused, each with file, line, path and the next action."""

import textwrap

import pytest

from lab.errors import InputError
from lab.k8s.configuration import options_of
from lab.k8s.read import read_files, read_text
from lab.model import Options

POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec:
"""
CILIUM = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p}
spec:
  endpointSelector: {}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: s}
spec:
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
"""

REFUSED = {
    "misspelt field of a rule": (
        POLICY + "  podSelector: {}\n  ingress:\n  - form: []\n",
        "m.yaml:7: spec.ingress[0].form: unknown field 'form' (did you mean 'from'?)",
    ),
    "label beside matchLabels instead of below": (
        CILIUM + "  ingress:\n  - fromEndpoints:\n    - matchLabels:\n      role: frontend\n",
        "m.yaml:9: spec.ingress[0].fromEndpoints[0].role: unknown field 'role'",
    ),
    "misspelt kind": (
        "apiVersion: v1\nkind: Pott\nmetadata: {name: a}\n",
        "m.yaml:2: kind: kind 'Pott' is not read (did you mean 'Pod'?)",
    ),
    "old API version": (
        "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: a}\n",
        "m.yaml:1: apiVersion: NetworkPolicy of 'extensions/v1beta1' is not read",
    ),
    "no name": ("apiVersion: v1\nkind: Pod\nmetadata: {}\nspec: {}\n", "m.yaml:3: metadata"),
    "tab as indentation": ("kind: Pod\n\tspec: 1\n", "m.yaml:2: no valid YAML"),
    "key written twice": (
        POLICY + "  podSelector: {}\n  podSelector: {}\n",
        "m.yaml:6: spec.podSelector: written twice (remove one; the first is on line 5)",
    ),
    "podSelector missing": (POLICY + "  ingress: []\n", "spec: podSelector is missing"),
    "unknown policy type": (
        POLICY + "  podSelector: {}\n  policyTypes: [Ingres]\n",
        "spec.policyTypes[0]: 'Ingres' is none of the possible values (did you mean 'Ingress'?)",
    ),
    "unknown protocol": (
        POLICY + "  podSelector: {}\n  ingress: [{ports: [{protocol: tcp, port: 80}]}]\n",
        "protocol 'tcp' is unknown (did you mean 'TCP'?)",
    ),
    "quoted port number": (
        POLICY + '  podSelector: {}\n  ingress: [{ports: [{port: "80"}]}]\n',
        "the text '80' where a port number belongs (remove the quotes)",
    ),
    "port out of range": (
        POLICY + "  podSelector: {}\n  ingress: [{ports: [{port: 70000}]}]\n",
        "70000 is out of range (use 1 to 65535)",
    ),
    "range that ends before it begins": (
        POLICY + "  podSelector: {}\n  ingress: [{ports: [{port: 90, endPort: 80}]}]\n",
        "80 is out of range (use 90 to 65535)",
    ),
    "endPort beside a name": (
        POLICY + "  podSelector: {}\n  ingress: [{ports: [{port: web, endPort: 80}]}]\n",
        "endPort beside a named port",
    ),
    "ipBlock beside a selector": (
        POLICY
        + "  podSelector: {}\n  ingress:\n  - from:\n"
        + "    - ipBlock: {cidr: 10.0.0.0/8}\n      podSelector: {}\n",
        "m.yaml:8: spec.ingress[0].from[0]: ipBlock cannot stand beside a selector",
    ),
    "empty peer": (
        POLICY + "  podSelector: {}\n  ingress: [{from: [{}]}]\n",
        "a peer must have a selector or an ipBlock",
    ),
    "exception outside its block": (
        POLICY
        + "  podSelector: {}\n  egress:\n"
        + "  - to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]\n",
        "11.0.0.0/8 is not a part of 10.0.0.0/8",
    ),
    "no network": (
        POLICY + "  podSelector: {}\n  egress: [{to: [{ipBlock: {cidr: 10.0.0/8}}]}]\n",
        "'10.0.0/8' is no IPv4 network",
    ),
    "requirements no pod can meet": (
        POLICY
        + "  podSelector:\n    matchLabels: {app: a}\n    matchExpressions:\n"
        + "    - {key: app, operator: NotIn, values: [a]}\n",
        "m.yaml:5: spec.podSelector: no labels can meet both requirements on 'app'",
    ),
    "In without values": (
        POLICY + "  podSelector: {matchExpressions: [{key: app, operator: In}]}\n",
        "In needs at least one value",
    ),
    "Exists with values": (
        POLICY + "  podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}\n",
        "Exists takes no values",
    ),
    "unknown operator": (
        POLICY + "  podSelector: {matchExpressions: [{key: app, operator: Has}]}\n",
        "'Has' is none of the possible values",
    ),
    "label value that Kubernetes refuses": (
        POLICY + "  podSelector: {matchLabels: {app: 'a b'}}\n",
        "'a b' is no label value",
    ),
    "number as a label value": (
        POLICY + "  podSelector: {matchLabels: {version: 1}}\n",
        'the number 1 where text belongs (quote it: "1")',
    ),
    "list where a mapping belongs": (
        POLICY + "  podSelector: []\n",
        "spec.podSelector: a list where a mapping belongs",
    ),
    "layer-7 rules": (
        CILIUM
        + "  ingress:\n  - toPorts:\n    - ports: [{port: '80'}]\n      rules: {http: [{}]}\n",
        "m.yaml:9: spec.ingress[0].toPorts[0].rules: layer-7 rules need the proxy",
    ),
    "toFQDNs": (
        CILIUM + "  egress:\n  - toFQDNs: [{matchName: example.org}]\n",
        "m.yaml:7: spec.egress[0].toFQDNs: toFQDNs is not enforced by the lab",
    ),
    "two kinds of peers in one Cilium rule": (
        CILIUM + "  ingress: [{fromEntities: [world], fromCIDR: [10.0.0.0/8]}]\n",
        "fromCIDR and fromEntities cannot be combined",
    ),
    "icmps beside toPorts": (
        CILIUM
        + "  ingress: [{icmps: [{fields: [{type: 8}]}], toPorts: [{ports: [{port: '1'}]}]}]\n",
        "icmps cannot stand beside toPorts",
    ),
    "unknown entity": (
        CILIUM + "  ingress: [{fromEntities: [wrold]}]\n",
        "'wrold' is none of the possible values (did you mean 'world'?)",
    ),
    "Cilium port as a number": (
        CILIUM + "  ingress: [{toPorts: [{ports: [{port: 80}]}]}]\n",
        'the number 80 where text belongs (quote it: "80")',
    ),
    "a digit that no number is made of": (
        CILIUM + "  ingress: [{toPorts: [{ports: [{port: '8²'}]}]}]\n",
        "'8²' is no port name",
    ),
    "namespace of a clusterwide policy": (
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n"
        "metadata: {name: p, namespace: x}\nspec: {endpointSelector: {}}\n",
        "this kind belongs to no namespace",
    ),
    "pod without containers": (POD + "  containers: []\n", "a pod needs at least one container"),
    "misspelt field of a container": (
        POD + "  containers: [{name: c, imagePullPolice: Always}]\n",
        "unknown field 'imagePullPolice' (did you mean 'imagePullPolicy'?)",
    ),
    "host network": (
        POD + "  hostNetwork: true\n  containers: [{name: c}]\n",
        "spec.hostNetwork: pods in the node's network namespace are not modelled",
    ),
    "two containers of one name": (
        POD + "  containers:\n  - name: c\n  - name: c\n",
        "m.yaml:7: spec.containers[1]: two containers are called 'c'",
    ),
    "probe of two kinds": (
        POD
        + "  containers:\n  - name: c\n"
        + "    readinessProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}\n",
        "a probe has one of httpGet, tcpSocket, grpc, exec, not 2",
    ),
    "selector that misses the template": (
        DEPLOYMENT
        + "  selector: {matchLabels: {app: a}}\n"
        + "  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c}]}}\n",
        "the selector does not select the template's own labels",
    ),
    "service without ports": (SERVICE + "  selector: {app: a}\n", "the service has no ports"),
    "service with the same port twice": (
        SERVICE + "  ports: [{name: a, port: 80}, {name: b, port: 80}]\n",
        "port 80/TCP is there twice",
    ),
    "several ports without names": (
        SERVICE + "  ports: [{port: 80}, {port: 81}]\n",
        "a service with several ports needs names for them",
    ),
    "node port of a ClusterIP": (
        SERVICE + "  ports: [{port: 80, nodePort: 30080}]\n",
        "a ClusterIP service has no node port",
    ),
    "node port out of range": (
        SERVICE + "  type: NodePort\n  ports: [{port: 80, nodePort: 80}]\n",
        "80 is out of range (use 30000 to 32767)",
    ),
    "source ranges without a load balancer": (
        SERVICE + "  ports: [{port: 80}]\n  loadBalancerSourceRanges: [10.0.0.0/8]\n",
        "source ranges mean nothing for type ClusterIP",
    ),
    "headless NodePort": (
        SERVICE + "  type: NodePort\n  clusterIP: None\n  ports: [{port: 80}]\n",
        "a NodePort service cannot be headless",
    ),
    "one object twice": (
        POLICY + "  podSelector: {}\n---\n" + POLICY + "  podSelector: {}\n",
        "m.yaml:7: NetworkPolicy 'default/p' is there twice (the first is at m.yaml:1",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(text, message):
    with pytest.raises(InputError) as error:
        read_text(textwrap.dedent(text), "m.yaml")
    assert message in str(error.value)
    assert error.value.hint


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"nowhere\.yaml cannot be read"):
        read_files(["nowhere.yaml"])


def test_kinds_without_a_network_are_noted_and_left_out():
    found = read_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {}\n", "m.yaml")
    assert found.items == ()
    assert found.notes == ("m.yaml:1: ConfigMap is no part of the lab",)


CONFIG = """
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: cilium-config, namespace: kube-system}
    data:
      tunnel: disabled
      enable-bpf-masquerade: "true"
      enable-ipv4-masquerade: "true"
      bpf-lb-mode: dsr
      mtu: "1400"
      cluster-name: here
"""
AGENT = """
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: ip-masq-agent, namespace: kube-system}
    data:
      config: |
        nonMasqueradeCIDRs: [203.0.113.0/24, 198.51.100.0/24]
"""


def test_cilium_config_sets_the_options_of_the_datapath():
    found = read_text(textwrap.dedent(CONFIG), "m.yaml")
    wanted = Options(routing="native", nodeport_mode="dsr", mtu=1400)
    assert (found.items, options_of(found)) == ((), wanted)
    assert found.notes == ("m.yaml:11: cluster-name is no option of the lab",)


def test_ip_masq_agent_names_who_sees_pods_own_addresses():
    found = read_text(textwrap.dedent(AGENT), "m.yaml")
    wanted = ("203.0.113.0/24", "198.51.100.0/24")
    assert options_of(found).masquerade_exceptions == wanted


def test_a_flag_with_a_word_it_does_not_take_is_refused():
    with pytest.raises(InputError, match="'geneve' is none of the possible values"):
        read_text(textwrap.dedent(CONFIG.replace("disabled", "geneve")), "m.yaml")


def test_lists_are_opened_and_empty_documents_skipped():
    text = (
        "---\n---\napiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
        "- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n"
    )
    assert [item.meta.name for item in read_text(text).items] == ["a", "b"]
