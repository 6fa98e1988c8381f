"""Namespace, Node, Pod and the controllers that make pods.

Known fields without a meaning for the network are accepted and left out; unknown ones are not.
"""

from __future__ import annotations

from lab.k8s.common import (
    TOP_LEVEL,
    read_labels,
    read_meta,
    read_port,
    read_port_name,
    read_protocol,
    read_selector,
    texts,
)
from lab.k8s.objects import (
    ClusterNode,
    Container,
    Controller,
    NamedPort,
    Namespace,
    PodObject,
    PodSpec,
    Probe,
)
from lab.k8s.tree import Item, words
from lab.policy.objects import Operator, Selector

# every field of the API, whether the lab reads it or not: any other word is a mistake
_POD_SPEC = words(
    "containers initContainers ephemeralContainers volumes restartPolicy nodeName nodeSelector "
    "terminationGracePeriodSeconds activeDeadlineSeconds dnsPolicy dnsConfig serviceAccountName "
    "serviceAccount automountServiceAccountToken hostNetwork hostPID hostIPC hostUsers hostname "
    "subdomain hostAliases shareProcessNamespace securityContext imagePullSecrets affinity "
    "schedulerName tolerations priorityClassName priority preemptionPolicy readinessGates "
    "runtimeClassName enableServiceLinks overhead topologySpreadConstraints setHostnameAsFQDN os "
    "schedulingGates resourceClaims resources"
)
_CONTAINER = words(
    "name image imagePullPolicy command args workingDir ports env envFrom resources resizePolicy "
    "restartPolicy volumeMounts volumeDevices livenessProbe readinessProbe startupProbe lifecycle "
    "terminationMessagePath terminationMessagePolicy securityContext stdin stdinOnce tty"
)
_PROBE = words(
    "httpGet tcpSocket grpc exec initialDelaySeconds periodSeconds timeoutSeconds "
    "successThreshold failureThreshold terminationGracePeriodSeconds"
)
_NODE_SPEC = words("podCIDR podCIDRs providerID taints unschedulable externalID configSource")
_CONTROLLER_SPEC = {
    "Deployment": words(
        "replicas selector template strategy minReadySeconds revisionHistoryLimit paused "
        "progressDeadlineSeconds"
    ),
    "ReplicaSet": words("replicas selector template minReadySeconds"),
    "StatefulSet": words(
        "replicas selector template serviceName podManagementPolicy updateStrategy "
        "revisionHistoryLimit volumeClaimTemplates minReadySeconds ordinals "
        "persistentVolumeClaimRetentionPolicy"
    ),
    "DaemonSet": words("selector template updateStrategy minReadySeconds revisionHistoryLimit"),
}
MOST_REPLICAS = 200


def read_namespace(document: Item) -> Namespace:
    """Read a Namespace.

    Raises:
        InputError: an unknown field or label.
    """
    fields = document.fields(*TOP_LEVEL)
    return Namespace(read_meta(fields.get("metadata"), document, namespaced=False))


def read_node(document: Item) -> ClusterNode:
    """Read a Node; its InternalIP and podCIDR are kept where they are written.

    Raises:
        InputError: an unknown field, an address that is none.
    """
    fields = document.fields(*TOP_LEVEL)
    meta = read_meta(fields.get("metadata"), document, namespaced=False)
    spec = fields["spec"].fields(*_NODE_SPEC) if "spec" in fields else {}
    address = None
    if "status" in fields and "addresses" in fields["status"].mapping():
        for entry in fields["status"].mapping()["addresses"].items():
            written = entry.fields("type", "address")
            if "type" in written and written["type"].value == "InternalIP":
                address = written["address"].address() if "address" in written else None
    cidr = spec["podCIDR"].cidr() if "podCIDR" in spec else None
    return ClusterNode(meta, cidr, address)


def read_pod(document: Item) -> PodObject:
    """Read a bare Pod.

    Raises:
        InputError: an unknown field, or what the lab cannot run.
    """
    fields = document.fields(*TOP_LEVEL)
    meta = read_meta(fields.get("metadata"), document)
    if "spec" not in fields:
        document.fail("spec is missing", "add 'spec:' with 'containers:'")
    return PodObject(meta, _read_pod_spec(fields["spec"]))


def read_controller(document: Item) -> Controller:
    """Read a Deployment, ReplicaSet, StatefulSet or DaemonSet.

    Raises:
        InputError: an unknown field, or a selector that does not select the template's pods.
    """
    fields = document.fields(*TOP_LEVEL)
    kind = fields["kind"].text()
    meta = read_meta(fields.get("metadata"), document)
    if "spec" not in fields:
        document.fail("spec is missing", "add 'spec:' with 'selector:' and 'template:'")
    spec = fields["spec"].fields(*_CONTROLLER_SPEC[kind])
    for name in ("selector", "template"):
        if name not in spec:
            fields["spec"].fail(f"{name} is missing", f"add '{name}:'")
    template = spec["template"].fields("metadata", "spec")
    if "spec" not in template:
        spec["template"].fail("spec is missing", "add 'spec:' with 'containers:'")
    labels: dict[str, str] = {}
    if "metadata" in template:
        labels = read_labels(template["metadata"].mapping().get("labels"))
    # the API server refuses it too: the controller would never find its own pods
    if not _selects(read_selector(spec["selector"]), labels):
        spec["selector"].fail(
            "the selector does not select the template's own labels",
            "use the same labels in selector.matchLabels and template.metadata.labels",
        )
    replicas = spec["replicas"].number(0, MOST_REPLICAS) if "replicas" in spec else 1
    return Controller(kind, meta, replicas, labels, _read_pod_spec(template["spec"]))


def _selects(selector: Selector, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.match_labels):
        return False
    for item in selector.match_expressions:
        inside = labels.get(item.key) in item.values
        holds = {
            Operator.IN: inside,
            Operator.NOT_IN: not inside,
            Operator.EXISTS: item.key in labels,
            Operator.DOES_NOT_EXIST: item.key not in labels,
        }
        if not holds[item.operator]:
            return False
    return True


def _read_pod_spec(item: Item) -> PodSpec:
    fields = item.fields(*_POD_SPEC)
    if "hostNetwork" in fields and fields["hostNetwork"].truth():
        fields["hostNetwork"].fail(
            "pods in the node's network namespace are not modelled",
            "remove the line; the node itself can be used as a client",
        )
    if "containers" not in fields or not fields["containers"].items():
        item.fail("a pod needs at least one container", "add 'containers:' with a name and image")
    # the second is the first one's deprecated name, still written by some tools
    account = fields.get("serviceAccountName") or fields.get("serviceAccount")
    containers = tuple(_read_container(part) for part in fields["containers"].items())
    names = [container.name for container in containers]
    for number, part in enumerate(fields["containers"].items()):
        if names[number] in names[:number]:
            part.fail(f"two containers are called {names[number]!r}", "rename one of them")
    # they have ended before anything is sent: read for their mistakes alone
    for part in fields["initContainers"].items() if "initContainers" in fields else ():
        _read_container(part)
    return PodSpec(
        containers=containers,
        node_name=fields["nodeName"].name() if "nodeName" in fields else None,
        node_selector=tuple(texts(fields.get("nodeSelector")).items()),
        service_account=account.name() if account else "default",
    )


def _read_container(item: Item) -> Container:
    fields = item.fields(*_CONTAINER)
    if "name" not in fields:
        item.fail("the container has no name", "add 'name:'")
    env = []
    for entry in fields["env"].items() if "env" in fields else ():
        written = entry.fields("name", "value", "valueFrom")
        if "name" in written and "value" in written:
            env.append((written["name"].text(), written["value"].text()))
    # read for their mistakes alone
    for name in ("livenessProbe", "startupProbe"):
        if name in fields:
            _read_probe(fields[name])
    probe = fields.get("readinessProbe")
    return Container(
        name=fields["name"].name(),
        image=fields["image"].text() if "image" in fields else "",
        command=_texts(fields.get("command")),
        args=_texts(fields.get("args")),
        env=tuple(env),
        ports=tuple(_read_container_port(p) for p in fields["ports"].items())
        if "ports" in fields
        else (),
        readiness=_read_probe(probe) if probe else None,
    )


def _texts(item: Item | None) -> tuple[str, ...]:
    return tuple(part.text() for part in item.items()) if item else ()


def _read_container_port(item: Item) -> NamedPort:
    fields = item.fields("containerPort", "name", "protocol", "hostPort", "hostIP")
    if "containerPort" not in fields:
        item.fail("containerPort is missing", "add 'containerPort: 80'")
    return NamedPort(
        number=fields["containerPort"].number(1, 65535),
        name=read_port_name(fields["name"]) if "name" in fields else "",
        protocol=read_protocol(fields.get("protocol")),
        host_port=fields["hostPort"].number(1, 65535) if "hostPort" in fields else None,
    )


def _read_probe(item: Item) -> Probe:
    fields = item.fields(*_PROBE)
    kinds = [name for name in ("httpGet", "tcpSocket", "grpc", "exec") if name in fields]
    if len(kinds) != 1:
        item.fail(
            f"a probe has one of httpGet, tcpSocket, grpc, exec, not {len(kinds)}",
            "add or remove one",
        )
    kind, path = kinds[0], "/"
    port: int | str = 0
    command: tuple[str, ...] = ()
    if kind == "exec":
        command = _texts(fields["exec"].fields("command").get("command"))
    else:
        known = {
            "httpGet": words("path port host scheme httpHeaders"),
            "tcpSocket": words("port host"),
            "grpc": words("port service"),
        }
        written = fields[kind].fields(*known[kind])
        if "port" not in written:
            fields[kind].fail("port is missing", "add 'port:'")
        port = read_port(written["port"])
        path = written["path"].text() if "path" in written else "/"

    # Kubernetes' own defaults
    def seconds(name: str, default: int, least: int = 1) -> int:
        return fields[name].number(least, 86400) if name in fields else default

    return Probe(
        kind=kind,
        port=port,
        path=path,
        command=command,
        initial_delay_s=seconds("initialDelaySeconds", 0, 0),
        period_s=seconds("periodSeconds", 10),
        timeout_s=seconds("timeoutSeconds", 1),
        success=seconds("successThreshold", 1),
        failure=seconds("failureThreshold", 3),
    )
