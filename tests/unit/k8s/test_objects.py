"""What manifests turn into: defaults, units, and everything a field can say."""

import textwrap

from lab.k8s.objects import (
    Controller,
    EndpointsObject,
    PodObject,
    PolicyObject,
    ServiceObject,
)
from lab.k8s.read import read_text
from lab.policy.objects import Direction, IPBlock, Operator, Peer, Port, Requirement, Selector


def read(text, kind):
    return read_text(textwrap.dedent(text)).of(kind)


def test_network_policy_keeps_all_of_v1():
    (found,) = read(
        """\
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: all, namespace: shop}
        spec:
          podSelector:
            matchLabels: {app: web}
            matchExpressions: [{key: tier, operator: NotIn, values: [old]}]
          policyTypes: [Ingress, Egress]
          ingress:
          - from:
            - podSelector: {}
            - namespaceSelector: {matchLabels: {team: red}}
              podSelector: {matchLabels: {app: api}}
            - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
            ports:
            - {port: 80}
            - {port: web, protocol: TCP}
            - {port: 8000, endPort: 8100, protocol: SCTP}
            - {protocol: UDP}
          - {}
          egress: []
        """,
        PolicyObject,
    )
    (policy,) = found.rules
    assert policy.pod_selector == Selector(
        (("app", "web"),), (Requirement("tier", Operator.NOT_IN, ("old",)),)
    )
    assert policy.directions == frozenset(Direction)
    first, second = policy.ingress
    assert first.peers == (
        Peer(pod_selector=Selector()),
        Peer(pod_selector=Selector.of(app="api"), namespace_selector=Selector((("team", "red"),))),
        Peer(ip_block=IPBlock("10.0.0.0/8", ("10.1.0.0/16",))),
    )
    assert first.ports == (
        Port("TCP", 80),
        Port("TCP", "web"),
        Port("SCTP", 8000, 8100),
        Port("UDP"),
    )
    assert (second.peers, second.ports, policy.egress) == ((), (), ())


def test_policy_types_follow_from_the_rules():
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
    (plain,) = read(head + "spec: {podSelector: {}}\n", PolicyObject)
    (egress,) = read(head + "spec: {podSelector: {}, egress: [{}]}\n", PolicyObject)
    assert plain.rules[0].directions == {Direction.INGRESS}
    (empty,) = read(head + "spec: {podSelector: {}, policyTypes: []}\n", PolicyObject)
    assert egress.rules[0].directions == set(Direction)
    assert empty.rules[0].directions == {Direction.INGRESS}


def test_cilium_policy_with_specs_denies_icmp_and_ranges():
    (found,) = read(
        """\
        apiVersion: cilium.io/v2
        kind: CiliumClusterwideNetworkPolicy
        metadata: {name: many}
        specs:
        - description: first
          endpointSelector: {matchLabels: {k8s:app: web}}
          ingress:
          - fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]
            toPorts: [{ports: [{port: "80", endPort: 444, protocol: TCP}, {port: dns}]}]
          ingressDeny:
          - fromEntities: [world]
        - endpointSelector: {}
          enableDefaultDeny: {egress: false}
          egress:
          - icmps: [{fields: [{type: EchoRequest, family: IPv4}, {type: 3}]}]
        """,
        PolicyObject,
    )
    first, second = found.rules
    assert first.namespace is None
    assert first.endpoint_selector.match_labels == (("k8s:app", "web"),)
    assert first.ingress[0].cidrs == (IPBlock("10.0.0.0/8", ("10.96.0.0/12",)),)
    assert first.ingress[0].ports == (Port("TCP", 80, 444), Port("ANY", "dns"))
    assert first.ingress_deny[0].entities == ("world",)
    assert second.egress[0].icmp_types == (8, 3)
    assert (second.default_deny_egress, second.default_deny_ingress) == (False, None)


def test_service_keeps_addresses_policies_and_affinity():
    (found,) = read(
        """\
        apiVersion: v1
        kind: Service
        metadata: {name: s}
        spec:
          type: LoadBalancer
          selector: {app: web}
          externalIPs: [198.51.100.4]
          loadBalancerSourceRanges: [203.0.113.0/24]
          externalTrafficPolicy: Local
          internalTrafficPolicy: Cluster
          sessionAffinity: ClientIP
          sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
          ports:
          - {name: http, port: 80, targetPort: web, nodePort: 30080}
          - {name: d, port: 53, protocol: UDP}
        """,
        ServiceObject,
    )
    assert (found.kind, found.affinity_s, found.external_local) == ("LoadBalancer", 60, True)
    assert [(p.port, p.target, p.protocol, p.node_port) for p in found.ports] == [
        (80, "web", "TCP", 30080),
        (53, 53, "UDP", 0),
    ]


def test_headless_service_has_no_address():
    (found,) = read(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: None}\n",
        ServiceObject,
    )
    assert found.cluster_ip is None


def test_endpoints_give_one_object_per_subset():
    found = read(
        """\
        apiVersion: v1
        kind: Endpoints
        metadata: {name: s}
        subsets:
        - addresses: [{ip: 10.0.1.10, nodeName: alpha}]
          notReadyAddresses: [{ip: 10.0.1.11}]
          ports: [{port: 80}]
        - addresses: [{ip: 203.0.113.10}]
          ports: [{port: 81, name: b, protocol: UDP}]
        """,
        EndpointsObject,
    )
    assert [(part.service, len(part.addresses), part.ports) for part in found] == [
        ("s", 2, (("", 80, "TCP"),)),
        ("s", 1, (("b", 81, "UDP"),)),
    ]
    assert [address.ready for address in found[0].addresses] == [True, False]


def test_controller_keeps_template_and_replicas():
    (found,) = read(
        """\
        apiVersion: apps/v1
        kind: StatefulSet
        metadata: {name: db, namespace: default}
        spec:
          serviceName: db
          replicas: 3
          selector: {matchLabels: {app: db}}
          template:
            metadata: {labels: {app: db}}
            spec:
              serviceAccountName: keeper
              containers:
              - name: c
                image: postgres:16
                ports: [{containerPort: 5432, name: sql}]
                readinessProbe: {tcpSocket: {port: sql}, periodSeconds: 2}
        """,
        Controller,
    )
    assert (found.kind, found.replicas, found.template_labels) == ("StatefulSet", 3, {"app": "db"})
    probe = found.spec.containers[0].readiness
    assert (probe.kind, probe.port, probe.period_s) == ("tcpSocket", "sql", 2)
    assert found.spec.service_account == "keeper"


def test_pod_reads_what_real_manifests_carry():
    (found,) = read(
        """\
        apiVersion: v1
        kind: Pod
        metadata: {name: a, labels: {app: web}, annotations: {note: "x"}}
        spec:
          nodeName: beta
          restartPolicy: Never
          tolerations: [{operator: Exists}]
          volumes: [{name: v, emptyDir: {}}]
          containers:
          - name: c
            image: nginx
            resources: {limits: {cpu: 100m}}
            volumeMounts: [{name: v, mountPath: /tmp}]
            env: [{name: A, value: "1"}]
        status: {phase: Running}
        """,
        PodObject,
    )
    assert found.spec.node_name == "beta"
    assert found.spec.containers[0].env == (("A", "1"),)
