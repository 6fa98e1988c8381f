"""Tests of Cilium's suite that mean nothing for a lab (yet), each with its reason."""

from __future__ import annotations

_PROXY = "needs the layer-7 proxy"
_DNS = "needs the DNS proxy"
_HOSTNS = "pods in the node's network namespace are not modelled"
_CRYPT = "encryption is not part of the datapath yet"
_GATEWAY = "the egress gateway is not part of the datapath yet"

NOT_APPLICABLE = {
    "allow-all-with-metrics-check": "needs Prometheus metrics of the proxy",
    "from-cidr-host-netns": _HOSTNS,
    "client-egress-to-cidrgroup-deny": "CIDR groups are not read",
    "cluster-entity-multi-cluster": "a lab is one cluster",
    "to-fqdns": _DNS,
    "to-fqdns-with-proxy": _DNS,
    "dns-only": _DNS,
    "client-egress-l7": _PROXY,
    "client-egress-l7-method": _PROXY,
    "client-egress-l7-named-port": _PROXY,
    "client-egress-l7-set-header": _PROXY,
    "echo-ingress-l7": _PROXY,
    "echo-ingress-l7-named-port": _PROXY,
    "echo-ingress-l7-via-hostport": _PROXY,
    "client-egress-l7-tls-headers": _PROXY,
    "client-egress-l7-tls-deny-without-headers": _PROXY,
    "client-egress-tls-sni": _PROXY,
    "north-south-loadbalancing-with-l7-policy": _PROXY,
    "l7-lb": _PROXY,
    "pod-to-ingress-service": "Ingress objects are not realised",
    "outside-to-ingress-service": "Ingress objects are not realised",
    "pod-to-node-cidrpolicy": "a CIDR never stands for a node (policy-cidr-match-mode is empty)",
    "pod-to-controlplane-host": "a lab has no control-plane node",
    "pod-to-controlplane-host-cidr": "a lab has no control-plane node",
    "pod-to-k8s-on-controlplane": "a lab has no API server",
    "host-firewall-ingress": "policies for nodes are not enforced yet",
    "host-firewall-egress": "policies for nodes are not enforced yet",
    "egress-gateway": _GATEWAY,
    "egress-gateway-excluded-cidrs": _GATEWAY,
    "egress-gateway-multigateway": _GATEWAY,
    "egress-gateway-with-l7-policy": _GATEWAY,
    "pod-to-pod-encryption": _CRYPT,
    "pod-to-pod-encryption-v2": _CRYPT,
    "node-to-node-encryption": _CRYPT,
    "strict-mode-encryption": _CRYPT,
    "strict-mode-encryption-v2": _CRYPT,
    "ipsec-key-derivation-validation": _CRYPT,
    "no-ipsec-xfrm-errors": _CRYPT,
    "local-redirect-policy": "CiliumLocalRedirectPolicy is not read",
    "local-redirect-policy-with-node-dns": "CiliumLocalRedirectPolicy is not read",
    "health": "a lab has no health endpoints",
    "multicast": "multicast delivery is not part of the datapath yet",
    "bgp-control-plane-v1": "a lab has no BGP speaker",
    "bgp-control-plane-v2": "a lab has no BGP speaker",
    "endpointslice-sync": "needs several clusters",
    "network-perf": "figures are printed by the benches",
    "network-qos": "bandwidth limits are not part of the datapath yet",
    "network-bandwidth-limit": "bandwidth limits are not part of the datapath yet",
    "ztunnel": "needs an ambient mesh",
}
"""Name -> reason; names as in Cilium's suite."""
