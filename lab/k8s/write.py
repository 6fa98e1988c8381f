"""Objects back to manifests: what was read comes out as Kubernetes would have it written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from lab.k8s.objects import (
    ClusterNode,
    Container,
    Controller,
    EndpointsObject,
    KubernetesObject,
    Meta,
    Namespace,
    PodObject,
    PodSpec,
    PolicyObject,
    ServiceObject,
)
from lab.policy.objects import (
    CiliumPolicy,
    CiliumRule,
    Direction,
    IPBlock,
    NetworkPolicy,
    NetworkRule,
    Peer,
    Policy,
    Port,
    Selector,
)

Tree = dict[str, Any]


def to_yaml(items: Iterable[Tree]) -> str:
    """Return manifests as a YAML text of several documents."""
    return yaml.safe_dump_all(items, sort_keys=False, default_flow_style=False)


def policies_yaml(policies: Iterable[Policy]) -> str:
    """Return rule sets as manifests, for reports of counterexamples."""
    return to_yaml(policy_manifest(policy) for policy in policies)


def manifest(item: KubernetesObject) -> Tree:
    """Return one object as JSON-ready data with apiVersion, kind, metadata and spec."""
    match item:
        case Namespace():
            return {"apiVersion": "v1", "kind": "Namespace", "metadata": _meta(item.meta)}
        case ClusterNode():
            return _node(item)
        case PodObject():
            return _object("v1", "Pod", item.meta, _pod_spec(item.spec))
        case Controller():
            return _controller(item)
        case ServiceObject():
            return _object("v1", "Service", item.meta, _service(item))
        case EndpointsObject():
            return _endpoints(item)
        case PolicyObject():
            made = [policy_manifest(rule) for rule in item.rules]
            if len(made) == 1:
                return made[0]
            specs = [one.pop("spec") for one in made]
            return {**made[0], "specs": specs}


def _object(version: str, kind: str, meta: Meta, spec: Tree) -> Tree:
    return {"apiVersion": version, "kind": kind, "metadata": _meta(meta), "spec": spec}


def _without_nothing(tree: Tree) -> Tree:
    # absent, not empty: where the difference matters (Cilium's empty lists) the caller adds it
    # itself
    return {key: value for key, value in tree.items() if value not in (None, "", [], {}, ())}


def _meta(meta: Meta) -> Tree:
    return _without_nothing(
        {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": dict(meta.labels),
            "annotations": dict(meta.annotations),
        }
    )


def _node(item: ClusterNode) -> Tree:
    made = _object("v1", "Node", item.meta, _without_nothing({"podCIDR": item.pod_cidr}))
    if item.address:
        made["status"] = {"addresses": [{"type": "InternalIP", "address": item.address}]}
    return made


def _pod_spec(spec: PodSpec) -> Tree:
    return _without_nothing(
        {
            "nodeName": spec.node_name,
            "nodeSelector": dict(spec.node_selector),
            "serviceAccountName": spec.service_account,
            "containers": [_container(container) for container in spec.containers],
        }
    )


def _container(item: Container) -> Tree:
    ports = [
        _without_nothing(
            {
                "name": port.name,
                "containerPort": port.number,
                "protocol": port.protocol,
                "hostPort": port.host_port,
            }
        )
        for port in item.ports
    ]
    made: Tree = {
        "name": item.name,
        "image": item.image,
        "command": list(item.command),
        "args": list(item.args),
        "env": [{"name": name, "value": value} for name, value in item.env],
        "ports": ports,
    }
    probe = item.readiness
    if probe is not None:
        action: Tree = {"port": probe.port}
        if probe.kind == "httpGet":
            action["path"] = probe.path
        if probe.kind == "exec":
            action = {"command": list(probe.command)}
        made["readinessProbe"] = {
            probe.kind: action,
            "initialDelaySeconds": probe.initial_delay_s,
            "periodSeconds": probe.period_s,
            "timeoutSeconds": probe.timeout_s,
            "successThreshold": probe.success,
            "failureThreshold": probe.failure,
        }
    return _without_nothing(made)


def _controller(item: Controller) -> Tree:
    spec: Tree = {
        "selector": {"matchLabels": dict(item.template_labels)},
        "template": {
            "metadata": {"labels": dict(item.template_labels)},
            "spec": _pod_spec(item.spec),
        },
    }
    # a DaemonSet has a pod for each node
    if item.kind != "DaemonSet":
        spec["replicas"] = item.replicas
    # the API wants the field; by custom the headless service is called like its set
    if item.kind == "StatefulSet":
        spec["serviceName"] = item.meta.name
    return _object("apps/v1", item.kind, item.meta, spec)


def _service(item: ServiceObject) -> Tree:
    ports = [
        _without_nothing(
            {
                "name": port.name,
                "port": port.port,
                "targetPort": port.target,
                "protocol": port.protocol,
                "nodePort": port.node_port or None,
            }
        )
        for port in item.ports
    ]
    affinity: Tree = {}
    if item.affinity_s:
        affinity = {
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": item.affinity_s}},
        }
    return _without_nothing(
        {
            "type": item.kind,
            # headless: Kubernetes wants the word
            "clusterIP": "None" if item.cluster_ip is None else item.cluster_ip,
            "selector": dict(item.selector or ()),
            "ports": ports,
            "externalIPs": list(item.external_ips),
            "loadBalancerIP": item.load_balancer_ip,
            "loadBalancerSourceRanges": list(item.source_ranges),
            **affinity,
            "externalTrafficPolicy": "Local" if item.external_local else None,
            "internalTrafficPolicy": "Local" if item.internal_local else None,
            "publishNotReadyAddresses": item.publish_not_ready or None,
        }
    )


def _endpoints(item: EndpointsObject) -> Tree:
    meta = _meta(item.meta)
    meta["labels"] = {**meta.get("labels", {}), "kubernetes.io/service-name": item.service}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta,
        "addressType": "IPv4",
        "endpoints": [
            _without_nothing(
                {
                    "addresses": [address.address],
                    "conditions": {
                        "ready": address.ready and not address.terminating,
                        "serving": address.ready,
                        "terminating": address.terminating,
                    },
                    "nodeName": address.node,
                }
            )
            for address in item.addresses
        ],
        "ports": [
            {"name": name, "port": number, "protocol": protocol}
            for name, number, protocol in item.ports
        ],
    }


# --- policies -------------------------------------------------------------------------------


def policy_manifest(policy: Policy) -> Tree:
    """Return one rule set as an object of its own."""
    if isinstance(policy, NetworkPolicy):
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": policy.name, "namespace": policy.namespace},
            "spec": _network_spec(policy),
        }
    kind = "CiliumNetworkPolicy" if policy.namespace else "CiliumClusterwideNetworkPolicy"
    meta = _without_nothing({"name": policy.name, "namespace": policy.namespace})
    return {
        "apiVersion": "cilium.io/v2",
        "kind": kind,
        "metadata": meta,
        "spec": _cilium_spec(policy),
    }


def selector_tree(selector: Selector) -> Tree:
    """Return a label selector."""
    return _without_nothing(
        {
            "matchLabels": dict(selector.match_labels),
            "matchExpressions": [
                _without_nothing(
                    {"key": r.key, "operator": r.operator.value, "values": list(r.values)}
                )
                for r in selector.match_expressions
            ],
        }
    )


def _network_spec(policy: NetworkPolicy) -> Tree:
    spec: Tree = {
        "podSelector": selector_tree(policy.pod_selector),
        "policyTypes": [d.value.capitalize() for d in Direction if d in policy.directions],
    }
    if policy.ingress:
        spec["ingress"] = [_network_rule(rule, "from") for rule in policy.ingress]
    if policy.egress:
        spec["egress"] = [_network_rule(rule, "to") for rule in policy.egress]
    return spec


def _network_rule(rule: NetworkRule, side: str) -> Tree:
    return _without_nothing(
        {
            side: [_peer(peer) for peer in rule.peers],
            "ports": [
                _without_nothing(
                    {"protocol": port.protocol, "port": port.port, "endPort": port.end_port}
                )
                for port in rule.ports
            ],
        }
    )


def _peer(peer: Peer) -> Tree:
    made: Tree = {}
    if peer.ip_block is not None:
        made["ipBlock"] = _block(peer.ip_block)
    if peer.namespace_selector is not None:
        made["namespaceSelector"] = selector_tree(peer.namespace_selector)
    if peer.pod_selector is not None:
        made["podSelector"] = selector_tree(peer.pod_selector)
    return made


def _block(block: IPBlock) -> Tree:
    return _without_nothing({"cidr": block.cidr, "except": list(block.excepts)})


def _cilium_spec(policy: CiliumPolicy) -> Tree:
    spec: Tree = {"endpointSelector": selector_tree(policy.endpoint_selector)}
    default = {
        "ingress": policy.default_deny_ingress,
        "egress": policy.default_deny_egress,
    }
    default = {name: flag for name, flag in default.items() if flag is not None}
    if default:
        spec["enableDefaultDeny"] = default
    for name, side, rules in (
        ("ingress", "from", policy.ingress),
        ("ingressDeny", "from", policy.ingress_deny),
        ("egress", "to", policy.egress),
        ("egressDeny", "to", policy.egress_deny),
    ):
        if rules:
            spec[name] = [_cilium_rule(rule, side) for rule in rules]
    return spec


def _cilium_rule(rule: CiliumRule, side: str) -> Tree:
    made: Tree = {}
    if rule.endpoints is not None:
        made[f"{side}Endpoints"] = [selector_tree(item) for item in rule.endpoints]
    if rule.requires:
        made[f"{side}Requires"] = [selector_tree(item) for item in rule.requires]
    if rule.entities is not None:
        made[f"{side}Entities"] = list(rule.entities)
    if rule.cidrs is not None:
        made[f"{side}CIDRSet"] = [_block(block) for block in rule.cidrs]
    if rule.ports is not None:
        made["toPorts"] = [{"ports": [_cilium_port(port) for port in rule.ports]}]
    if rule.icmp_types is not None:
        fields = [{"type": number, "family": "IPv4"} for number in rule.icmp_types]
        made["icmps"] = [{"fields": fields}]
    return made


def _cilium_port(port: Port) -> Tree:
    return _without_nothing(
        {"port": str(port.port or 0), "endPort": port.end_port, "protocol": port.protocol}
    )
