"""Service, Endpoints and EndpointSlice."""

from __future__ import annotations

from dataclasses import replace

from lab.k8s.common import (
    TOP_LEVEL,
    read_labels,
    read_meta,
    read_port,
    read_port_name,
    read_protocol,
)
from lab.k8s.objects import EndpointAddress, EndpointsObject, ServiceObject, ServicePort
from lab.k8s.tree import Item, words

_SERVICE = words(
    "type selector ports clusterIP clusterIPs externalIPs sessionAffinity sessionAffinityConfig "
    "loadBalancerIP loadBalancerSourceRanges loadBalancerClass externalName "
    "externalTrafficPolicy internalTrafficPolicy healthCheckNodePort publishNotReadyAddresses "
    "ipFamilies ipFamilyPolicy allocateLoadBalancerNodePorts trafficDistribution"
)
_KINDS = words("ClusterIP NodePort LoadBalancer ExternalName")
_ADDRESS = words("ip hostname nodeName targetRef")

# the API server's defaults: --service-node-port-range, clientIP.timeoutSeconds (3 hours)
NODE_PORTS = (30000, 32767)
DEFAULT_AFFINITY_S = 10800


def read_service(document: Item) -> ServiceObject:
    """Read a Service.

    Raises:
        InputError: what an API server would refuse: no ports, two equal ports, a node port
            outside 30000-32767, source ranges without a load balancer.
    """
    fields = document.fields(*TOP_LEVEL)
    meta = read_meta(fields.get("metadata"), document)
    if "spec" not in fields:
        document.fail("spec is missing", "add 'spec:' with 'ports:'")
    spec = fields["spec"].fields(*_SERVICE)
    kind = spec["type"].choice(_KINDS) if "type" in spec else "ClusterIP"
    address = spec.get("clusterIP")
    cluster_ip: str | None = "" if address is None else address.text()
    # `None` is a word here (headless), and an empty text means "choose one"
    if address is not None and cluster_ip not in ("", "None"):
        address.address()
    headless = cluster_ip == "None"
    if headless and kind != "ClusterIP":
        fields["spec"].fail(f"a {kind} service cannot be headless", "remove 'clusterIP: None'")
    if "loadBalancerSourceRanges" in spec and kind != "LoadBalancer":
        spec["loadBalancerSourceRanges"].fail(
            f"source ranges mean nothing for type {kind}", "use 'type: LoadBalancer'"
        )
    ports = _read_ports(spec.get("ports"), kind)
    if not ports and kind != "ExternalName" and not headless:
        fields["spec"].fail("the service has no ports", "add 'ports:' with at least one port")
    return ServiceObject(
        meta=meta,
        kind=kind,
        selector=tuple(read_labels(spec["selector"]).items()) if "selector" in spec else None,
        ports=ports,
        cluster_ip=None if headless else cluster_ip,
        external_ips=_addresses(spec.get("externalIPs")),
        load_balancer_ip=spec["loadBalancerIP"].address() if "loadBalancerIP" in spec else "",
        source_ranges=tuple(p.cidr() for p in spec["loadBalancerSourceRanges"].items())
        if "loadBalancerSourceRanges" in spec
        else (),
        affinity_s=_read_affinity(spec),
        external_local=_is_local(spec.get("externalTrafficPolicy")),
        internal_local=_is_local(spec.get("internalTrafficPolicy")),
        publish_not_ready="publishNotReadyAddresses" in spec
        and spec["publishNotReadyAddresses"].truth(),
    )


def _addresses(item: Item | None) -> tuple[str, ...]:
    return tuple(part.address() for part in item.items()) if item else ()


def _is_local(item: Item | None) -> bool:
    return item is not None and item.choice(("Cluster", "Local")) == "Local"


def _read_affinity(spec: dict[str, Item]) -> int:
    kind = spec["sessionAffinity"].choice(("None", "ClientIP")) if "sessionAffinity" in spec else ""
    seconds = DEFAULT_AFFINITY_S
    if "sessionAffinityConfig" in spec:
        config = spec["sessionAffinityConfig"].fields("clientIP")
        if "clientIP" in config:
            written = config["clientIP"].fields("timeoutSeconds")
            if "timeoutSeconds" in written:
                seconds = written["timeoutSeconds"].number(1, 86400)
    return seconds if kind == "ClientIP" else 0


def _read_ports(item: Item | None, kind: str) -> tuple[ServicePort, ...]:
    entries = item.items() if item else ()
    found: list[ServicePort] = []
    for entry in entries:
        fields = entry.fields("name", "port", "targetPort", "protocol", "nodePort", "appProtocol")
        if "port" not in fields:
            entry.fail("port is missing", "add 'port: 80'")
        port = fields["port"].number(1, 65535)
        if "nodePort" in fields and kind not in ("NodePort", "LoadBalancer"):
            fields["nodePort"].fail(f"a {kind} service has no node port", "use 'type: NodePort'")
        if len(entries) > 1 and "name" not in fields:
            entry.fail("a service with several ports needs names for them", "add 'name:'")
        made = ServicePort(
            port=port,
            target=read_port(fields["targetPort"]) if "targetPort" in fields else port,
            protocol=read_protocol(fields.get("protocol")),
            name=read_port_name(fields["name"]) if "name" in fields else "",
            node_port=fields["nodePort"].number(*NODE_PORTS) if "nodePort" in fields else 0,
        )
        for other in found:
            if (other.port, other.protocol) == (made.port, made.protocol):
                entry.fail(f"port {port}/{made.protocol} is there twice", "remove one of them")
            if other.name == made.name:
                entry.fail(f"two ports are called {made.name!r}", "rename one of them")
        found.append(made)
    return tuple(found)


def read_endpoint_slice(document: Item) -> tuple[EndpointsObject, ...]:
    """Read an EndpointSlice of ``discovery.k8s.io/v1``.

    Raises:
        InputError: an IPv6 slice, or one that names no service.
    """
    known = words("apiVersion kind metadata addressType endpoints ports")
    fields = document.fields(*known)
    meta = read_meta(fields.get("metadata"), document)
    if "addressType" in fields:
        kind = fields["addressType"].choice(("IPv4", "IPv6", "FQDN"))
        if kind != "IPv4":
            fields["addressType"].fail(f"{kind} backends are not modelled", "use IPv4")
    service = meta.labels.get("kubernetes.io/service-name")
    if not service:
        document.fail(
            "the slice names no service", "add the label 'kubernetes.io/service-name: NAME'"
        )
    addresses: list[EndpointAddress] = []
    for entry in fields["endpoints"].items() if "endpoints" in fields else ():
        written = entry.fields(
            *words("addresses conditions hostname nodeName targetRef zone hints deprecatedTopology")
        )
        flags: dict[str, Item] = {}
        if "conditions" in written:
            flags = written["conditions"].fields("ready", "serving", "terminating")
        terminating = "terminating" in flags and flags["terminating"].truth()
        # of a pod that is terminating Kubernetes says `ready: false`, and `serving` what that was
        answers = "serving" if terminating else "ready"
        for address in written["addresses"].items() if "addresses" in written else ():
            addresses.append(
                EndpointAddress(
                    address=address.address(),
                    # EndpointSlice: either counts as true where nobody states it
                    ready=answers not in flags or flags[answers].truth(),
                    terminating=terminating,
                    node=written["nodeName"].name() if "nodeName" in written else "",
                )
            )
    ports = _endpoint_ports(fields.get("ports"))
    return (EndpointsObject(meta=meta, service=service, addresses=tuple(addresses), ports=ports),)


def _endpoint_ports(item: Item | None) -> tuple[tuple[str, int, str], ...]:
    found = []
    for entry in item.items() if item else ():
        fields = entry.fields("name", "port", "protocol", "appProtocol")
        if "port" not in fields:
            entry.fail("port is missing", "add 'port: 80'")
        name = fields["name"].text() if "name" in fields else ""
        found.append((name, fields["port"].number(1, 65535), read_protocol(fields.get("protocol"))))
    return tuple(found)


def read_endpoints(document: Item) -> tuple[EndpointsObject, ...]:
    """Read an Endpoints object: one result per subset.

    Raises:
        InputError: an unknown field or an address that is none.
    """
    fields = document.fields("apiVersion", "kind", "metadata", "subsets")
    meta = read_meta(fields.get("metadata"), document)
    found: list[EndpointsObject] = []
    for subset in fields["subsets"].items() if "subsets" in fields else ():
        parts = subset.fields("addresses", "notReadyAddresses", "ports")
        addresses = []
        for name in ("addresses", "notReadyAddresses"):
            for entry in parts[name].items() if name in parts else ():
                written = entry.fields(*_ADDRESS)
                if "ip" not in written:
                    entry.fail("ip is missing", "add 'ip: 10.0.1.10'")
                addresses.append(
                    EndpointAddress(
                        address=written["ip"].address(),
                        ready=name == "addresses",
                        node=written["nodeName"].name() if "nodeName" in written else "",
                    )
                )
        # one object per subset: each has its own ports
        # no two objects have one name: the first keeps the one that was written
        part = replace(meta, name=f"{meta.name}-{len(found)}") if found else meta
        found.append(
            EndpointsObject(
                meta=part,
                service=meta.name,
                addresses=tuple(addresses),
                ports=_endpoint_ports(parts.get("ports")),
            )
        )
    return tuple(found)
