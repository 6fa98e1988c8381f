"""The description: nodes, pods, links and options, as frozen and validated data.

Nothing here touches the machine. A description is valid once it exists; what it leads to is
computed by :mod:`lab.plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Any

from lab.errors import InputError, TopologyError
from lab.names import check_node_name, check_pod_name, did_you_mean

FIRST_POD_OFFSET = 10
"""Pods of a node get addresses from the tenth of its CIDR on; .1 is the router."""

WORLD_CLIENT = IPv4Address("203.0.113.10")
"""Address of the external client and server that the ``world`` namespace plays (RFC 5737)."""


def _network(text: str, what: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise TopologyError(
            f"{what}: {text!r} is no IPv4 network ({error})", hint="write it like '10.0.1.0/24'"
        ) from None


def _address(text: str, what: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except (AddressValueError, ValueError) as error:
        raise TopologyError(
            f"{what}: {text!r} is no IPv4 address ({error})", hint="write it like '10.0.1.10'"
        ) from None


@dataclass(frozen=True, slots=True)
class Node:
    """An emulated machine: a network namespace with an uplink.

    Attributes:
        name: DNS label of at most 15 characters.
        pod_cidr: network of its pods; by default ``10.0.N.0/24`` for the N-th node.
        address: its address in the underlay; by default the N-th of the underlay's CIDR.
    """

    name: str
    pod_cidr: str | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        check_node_name(self.name)
        if self.pod_cidr is not None:
            network = _network(self.pod_cidr, f"node {self.name!r}: pod_cidr")
            # an endpoint's id is the lower 16 bits of its address and unique on its node; and
            # a longer prefix than 27 leaves hardly a pod behind the first ten addresses
            if not 16 <= network.prefixlen <= 27:
                raise TopologyError(
                    f"node {self.name!r}: pod_cidr {network} has an unusable size",
                    hint="use a prefix length from 16 to 27",
                )
        if self.address is not None:
            _address(self.address, f"node {self.name!r}: address")


@dataclass(frozen=True, slots=True)
class Pod:
    """A network namespace attached to a node by a veth pair.

    Attributes:
        name: DNS name, unique within its namespace.
        node: the name of the node it runs on.
        labels: key -> value; equal sets of labels share a security identity.
        namespace: the Kubernetes namespace.
        address: inside the node's ``pod_cidr``; by default the next free one from ``.10`` on.
    """

    name: str
    node: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = "default"
    address: str | None = None

    def __post_init__(self) -> None:
        check_pod_name(self.name)
        check_pod_name(self.namespace)
        for key, value in self.labels.items():
            if not isinstance(key, str) or not isinstance(value, str) or not key:
                raise TopologyError(
                    f"pod {self.name!r}: label {key!r}: {value!r} is not text",
                    hint="labels are text keys and text values",
                )
        if self.address is not None:
            _address(self.address, f"pod {self.name!r}: address")

    @property
    def full_name(self) -> str:
        """The name that is unique in the lab: ``POD``, or ``NAMESPACE/POD`` outside *default*."""
        return self.name if self.namespace == "default" else f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Link:
    """How the wire between two nodes behaves; without one it is as fast as the machine.

    Attributes:
        a: name of one node.
        b: name of the other node.
        rate_mbit: rate limit in Mbit/s in each direction.
        delay_ms: one-way delay in milliseconds; described and drawn, but no engine has it yet.
        loss_pct: random loss in per cent in each direction; likewise.
    """

    a: str
    b: str
    rate_mbit: float | None = None
    delay_ms: float | None = None
    loss_pct: float | None = None

    def __post_init__(self) -> None:
        for name in ("rate_mbit", "delay_ms", "loss_pct"):
            value = getattr(self, name)
            if value is not None and (value < 0 or (name == "rate_mbit" and value == 0)):
                raise TopologyError(
                    f"link {self.a}-{self.b}: {name} {value} is impossible",
                    hint="use a positive number",
                )
        if self.loss_pct is not None and self.loss_pct > 100:
            raise TopologyError(
                f"link {self.a}-{self.b}: loss_pct {self.loss_pct} is more than all",
                hint="use 0 to 100",
            )
        if self.a == self.b:
            raise TopologyError(
                f"link {self.a}-{self.b}: both ends are the same node", hint="name two nodes"
            )


CHOICES = {
    "routing": ("vxlan", "native"),
    "host_routing": ("legacy", "bpf"),
    "masquerade": ("bpf", "iptables", "off"),
    "lb_algorithm": ("random", "maglev"),
    "nodeport_mode": ("snat", "dsr"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the datapath of a lab is configured; each is one word, as in Cilium's Helm values.

    Attributes:
        routing: ``vxlan`` (encapsulate between nodes) or ``native`` (the underlay routes pods).
        host_routing: ``legacy`` (through ``cilium_host`` and the node's stack) or ``bpf``.
        endpoint_routes: one route per pod, with ``to-container`` attached.
        masquerade: who translates pod -> world: ``bpf``, ``iptables`` or ``off``.
        lb_algorithm: how backends are chosen for traffic from outside.
        nodeport_mode: how NodePort traffic to a remote backend travels.
        prefilter: XDP on every node's uplink turns listed sources away.
        native_routing_cidr: network that pods' own addresses are shown to; empty for none.
        masquerade_exceptions: further networks, as the ip-masq agent lists them.
        policy_audit: policies drop nothing, but tell what they would have dropped.
        custom_calls: a program of the user's may run after a pod's own, see `lab endpoint custom`.
        tcx: tc programs are attached without clsact, as newer versions of Cilium do, and `tc filter
            show` does not list them; by clsact all the same where the kernel (before 6.6) cannot.
        inline_tail_calls: a pod's programs do in two what else is a tail call for each step; see
            the differences from Cilium in ``bpf/README.md``.
        proxy_rules: routing rules for packets to and from an HTTP proxy, as ``init.sh`` adds them
            without asking for one; every packet that the kernel routes is compared with them. Newer
            versions of Cilium add them only where a proxy is enabled (the lab has none).
        mtu: of every device, in bytes.
        ct_tcp_max: flows of TCP that a node remembers; a full table forgets the least used.
        datapath: attach the eBPF datapath; without it only namespaces, links and routes exist.
    """

    routing: str = "vxlan"
    host_routing: str = "legacy"
    endpoint_routes: bool = False
    masquerade: str = "bpf"
    lb_algorithm: str = "random"
    nodeport_mode: str = "snat"
    prefilter: bool = False
    native_routing_cidr: str = ""
    masquerade_exceptions: tuple[str, ...] = ()
    policy_audit: bool = False
    custom_calls: bool = False
    tcx: bool = False
    inline_tail_calls: bool = False
    proxy_rules: bool = True
    mtu: int = 1500
    ct_tcp_max: int = 32768
    datapath: bool = True

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise TopologyError(
                    f"option {name}: {value!r} is unknown", hint=did_you_mean(str(value), choices)
                )
        if self.nodeport_mode == "dsr" and self.routing != "native":
            raise TopologyError(
                "option nodeport_mode: dsr needs routed pods, and the tunnel hides them",
                hint="add routing='native'",
            )
        if self.host_routing == "bpf" and self.masquerade == "iptables":
            raise TopologyError(
                "option masquerade: netfilter never sees what host_routing='bpf' takes past it",
                hint="use masquerade='bpf', or host_routing='legacy'",
            )
        # 576: what every IPv4 host has to accept (RFC 791)
        if not 576 <= self.mtu <= 65535:
            raise TopologyError(f"option mtu: {self.mtu}", hint="use 576 to 65535 bytes")
        # as Cilium bounds the size of its connection table
        if not 1 << 10 <= self.ct_tcp_max <= 1 << 24:
            raise TopologyError(
                f"option ct_tcp_max: {self.ct_tcp_max}", hint="use 1024 to 16777216 flows"
            )
        # from JSON they come as a list
        object.__setattr__(self, "masquerade_exceptions", tuple(self.masquerade_exceptions))
        if self.native_routing_cidr:
            _network(self.native_routing_cidr, "option native_routing_cidr")
        for network in self.masquerade_exceptions:
            _network(network, "option masquerade_exceptions")

    @property
    def unmasqueraded(self) -> tuple[IPv4Network, ...]:
        """Every network that sees pods' own addresses, `native_routing_cidr` first."""
        first = (self.native_routing_cidr,) if self.native_routing_cidr else ()
        return tuple(IPv4Network(text) for text in (*first, *self.masquerade_exceptions))

    def with_words(self, words: Mapping[str, str]) -> Options:
        """Return these options with some changed: ``{"routing": "native", "prefilter": "true"}``.

        Raises:
            TopologyError: an option that is unknown, or a word it does not take.
        """
        known = {item.name: getattr(self, item.name) for item in fields(self)}
        changes: dict[str, Any] = {}
        for name, word in words.items():
            if name not in known:
                hint = did_you_mean(name, known)
                raise TopologyError(f"option {name!r} is unknown", hint=hint)
            changes[name] = _value_of(name, word, known[name])
        return replace(self, **changes)


def _value_of(name: str, word: str, example: object) -> object:
    """The value that a word stands for, of the same type as another value of that option."""
    # before int: Python counts booleans among the integers
    if isinstance(example, bool):
        if word not in ("true", "false"):
            raise TopologyError(f"option {name}: {word!r}", hint="say true or false")
        return word == "true"
    if isinstance(example, tuple):
        return tuple(part for part in word.split(",") if part)
    if isinstance(example, int):
        if not word.isdecimal():
            raise TopologyError(f"option {name}: {word!r} is no number", hint="for example 1500")
        return int(word)
    return word


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A whole lab as data.

    Attributes:
        name: default name of the lab.
        nodes: at least one.
        pods: each on a node of ``nodes``.
        links: behaviour of wires between nodes.
        underlay_cidr: network of the nodes; node N has its N-th address.
        options: configuration of the datapath.

    Raises:
        TopologyError: names the object, the cause and the next action.
    """

    name: str
    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...] = ()
    links: tuple[Link, ...] = ()
    underlay_cidr: str = "172.30.0.0/24"
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        # a list is welcome in a description, and frozen all the same
        for name in ("nodes", "pods", "links"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_pod_name(self.name)
        if not self.nodes:
            raise TopologyError(
                f"topology {self.name!r} is empty: it has no node", hint="add Node('alpha')"
            )
        _refuse_duplicates("node", [node.name for node in self.nodes])
        _refuse_duplicates("pod", [pod.full_name for pod in self.pods])
        known = {node.name for node in self.nodes}
        for pod in self.pods:
            if pod.node not in known:
                raise TopologyError(
                    f"pod {pod.full_name!r}: node {pod.node!r} does not exist",
                    hint=did_you_mean(pod.node, known),
                )
            # places are found by one name, whatever they are
            if pod.full_name in known:
                raise TopologyError(
                    f"pod {pod.full_name!r}: a node has the same name", hint="rename one of them"
                )
        for link in self.links:
            for end in (link.a, link.b):
                if end not in known:
                    raise TopologyError(
                        f"link {link.a}-{link.b}: node {end!r} does not exist",
                        hint=did_you_mean(end, known),
                    )
        _check_networks(self)

    def node(self, name: str) -> Node:
        """Return the node called ``name``.

        Raises:
            TopologyError: there is none; the hint names the nearest.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise TopologyError(
            f"node {name!r} does not exist in {self.name!r}",
            hint=did_you_mean(name, (node.name for node in self.nodes)),
        )

    def pod(self, name: str) -> Pod:
        """Return the pod called ``name`` or ``namespace/name``.

        Raises:
            TopologyError: there is none; the hint names the nearest.
        """
        for pod in self.pods:
            # `default/web` and `web` are one pod
            if name in (pod.full_name, f"{pod.namespace}/{pod.name}"):
                return pod
        raise TopologyError(
            f"pod {name!r} does not exist in {self.name!r}",
            hint=did_you_mean(name, (pod.full_name for pod in self.pods)),
        )

    def pod_cidr(self, node: Node) -> IPv4Network:
        """Return the network of a node's pods."""
        if node.pod_cidr is not None:
            return IPv4Network(node.pod_cidr)
        return IPv4Network((int(IPv4Address("10.0.0.0")) + (self._number(node) << 8), 24))

    def node_address(self, node: Node) -> IPv4Address:
        """Return a node's address in the underlay."""
        if node.address is not None:
            return IPv4Address(node.address)
        return IPv4Network(self.underlay_cidr).network_address + self._number(node)

    @property
    def gateway(self) -> IPv4Address:
        """The underlay's last host, which leads to the world; nodes count up from its first."""
        return IPv4Network(self.underlay_cidr).broadcast_address - 1

    def _number(self, node: Node) -> int:
        return self.nodes.index(node) + 1

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON-ready data; :meth:`from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Topology:
        """Build a topology from what :meth:`to_json` returned; validates it again."""
        known = {item.name for item in fields(cls)}
        values: dict[str, Any] = {key: value for key, value in data.items() if key in known}
        values["nodes"] = tuple(Node(**item) for item in data["nodes"])
        values["pods"] = tuple(Pod(**item) for item in data["pods"])
        values["links"] = tuple(Link(**item) for item in data["links"])
        values["options"] = Options(**data["options"])
        return cls(**values)


def _refuse_duplicates(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise TopologyError(f"two {what}s are called {name!r}", hint=f"rename one {what}")
        seen.add(name)


def _check_networks(topology: Topology) -> None:
    underlay = _network(topology.underlay_cidr, "underlay_cidr")
    # besides the nodes: network, broadcast, gateway, and one to spare
    if underlay.num_addresses < len(topology.nodes) + 4:
        raise TopologyError(
            f"underlay_cidr {underlay} is too small for {len(topology.nodes)} nodes",
            hint="use a shorter prefix",
        )
    # a node's number is the third octet of its own pod network
    if len(topology.nodes) > 250:
        raise TopologyError("more than 250 nodes", hint="give fewer nodes more pods")
    networks = [("underlay_cidr", underlay)]
    networks += [(f"pod CIDR of {node.name!r}", topology.pod_cidr(node)) for node in topology.nodes]
    for n, (what, network) in enumerate(networks):
        for other, taken in networks[:n]:
            if network.overlaps(taken):
                raise TopologyError(
                    f"{what} {network} overlaps {other} {taken}",
                    hint="give each node its own pod_cidr, apart from underlay_cidr",
                )
    addresses: dict[IPv4Address, str] = {}
    nobody = (underlay.network_address, underlay.broadcast_address, topology.gateway)
    for node in topology.nodes:
        address = topology.node_address(node)
        if address not in underlay:
            raise TopologyError(
                f"node {node.name!r}: address {address} is outside underlay_cidr {underlay}",
                hint="choose an address inside it",
            )
        if address in nobody:
            raise TopologyError(
                f"node {node.name!r}: address {address} is the network's own or the gateway's",
                hint=f"choose another address inside {underlay}",
            )
        if address in addresses:
            raise TopologyError(
                f"nodes {addresses[address]!r} and {node.name!r} share address {address}",
                hint="give one of them another address",
            )
        addresses[address] = node.name
    _check_pod_addresses(topology)


def _check_pod_addresses(topology: Topology) -> None:
    seen: dict[IPv4Address, str] = {}
    for pod in topology.pods:
        if pod.address is None:
            continue
        address, network = IPv4Address(pod.address), topology.pod_cidr(topology.node(pod.node))
        if address not in network or int(address) - int(network.network_address) < FIRST_POD_OFFSET:
            raise TopologyError(
                f"pod {pod.full_name!r}: address {address} is not free for pods in {network}",
                hint=f"choose one from {network.network_address + FIRST_POD_OFFSET} on",
            )
        if address in seen:
            raise TopologyError(
                f"pods {seen[address]!r} and {pod.full_name!r} share address {address}",
                hint="give one of them another address",
            )
        seen[address] = pod.full_name
    for node in topology.nodes:
        # 1: the broadcast address
        room = topology.pod_cidr(node).num_addresses - FIRST_POD_OFFSET - 1
        count = sum(pod.node == node.name for pod in topology.pods)
        if count > room:
            raise TopologyError(
                f"node {node.name!r}: {count} pods do not fit {topology.pod_cidr(node)}",
                hint="give it a larger pod_cidr",
            )


SERVICE_KINDS = ("ClusterIP", "NodePort", "LoadBalancer")
CLUSTER_NETWORK = IPv4Network("10.96.0.0/16")
"""Where the lab chooses cluster IPs from."""

LOAD_BALANCER_NETWORK = IPv4Network("198.51.100.0/24")
"""Where the lab chooses load balancers' addresses from; outside, the first node leads to them."""

NODE_PORTS = range(30000, 32768)
"""Where Kubernetes lets node ports be (``--service-node-port-range``)."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A Kubernetes namespace; its labels are part of its pods' identities."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_pod_name(self.name)


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a service.

    Attributes:
        port: that clients ask for.
        target: that backends listen on; 0 for the same.
        protocol: ``TCP`` or ``UDP``.
        node_port: on every node, for NodePort and LoadBalancer; 0 lets the lab choose.
        name: needed where backends name the port they serve.
    """

    port: int
    target: int = 0
    protocol: str = "TCP"
    node_port: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One backend given by hand; a pod's address and node follow from its name.

    Attributes:
        pod: name of a pod of the lab; or ``address`` is given.
        port_name: the port of the service that it serves; empty for every one.
        port: instead of the port's ``target``; 0 for that.
        ready: takes new connections; of a terminating one: still serves.
        terminating: finishes the old ones; gets new ones only where no other backend is left.
    """

    pod: str = ""
    address: str = ""
    port_name: str = ""
    port: int = 0
    ready: bool = True
    terminating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A stable address in front of several backends, as in Kubernetes.

    Attributes:
        name: unique in its namespace.
        ports: at least one; a plain number is a TCP port with an equal target.
        selector: labels of its backends; or ``backends`` are given: pod names or `Backend`.
        kind: ``ClusterIP``, ``NodePort`` or ``LoadBalancer``.
        cluster_ip: of 10.96.0.0/16; empty lets the lab choose.
        external_ips: further addresses, reachable from outside.
        load_balancer_ip: of a LoadBalancer; empty lets the lab choose from 198.51.100.0/24.
        source_ranges: CIDRs that may use the load balancer's address.
        affinity_s: a client keeps its backend for so long, in seconds; 0 for not at all.
        external_local: traffic from outside stays on the node it reached.
        internal_local: traffic from pods stays on their node.
    """

    name: str
    namespace: str = "default"
    ports: tuple[ServicePort | int, ...]
    selector: Mapping[str, str] = field(default_factory=dict, hash=False)
    backends: tuple[Backend | str, ...] = ()
    kind: str = "ClusterIP"
    cluster_ip: str = ""
    external_ips: tuple[str, ...] = ()
    load_balancer_ip: str = ""
    source_ranges: tuple[str, ...] = ()
    affinity_s: int = 0
    external_local: bool = False
    internal_local: bool = False

    def __post_init__(self) -> None:
        check_pod_name(self.name)
        if self.kind not in SERVICE_KINDS:
            raise InputError(
                f"service {self.name!r}: kind {self.kind!r} is unknown",
                hint=did_you_mean(self.kind, SERVICE_KINDS),
            )
        if not self.ports:
            raise InputError(
                f"service {self.name!r} has no ports", hint="add ports=(80,) or ServicePort(...)"
            )
        _check_service_ports(self)
        for address in (self.cluster_ip, self.load_balancer_ip, *self.external_ips):
            if address:
                _address(address, f"service {self.name!r}")
        for network in self.source_ranges:
            _network(network, f"service {self.name!r}: source_ranges")
        # Kubernetes' bounds of sessionAffinityConfig.clientIP.timeoutSeconds
        if not 0 <= self.affinity_s <= 86400:
            raise InputError(
                f"service {self.name!r}: affinity_s {self.affinity_s}", hint="use 0 to 86400 s"
            )

    @property
    def title(self) -> str:
        """``namespace/name``, unique in a lab."""
        return f"{self.namespace}/{self.name}"

    @property
    def port_list(self) -> tuple[ServicePort, ...]:
        """The ports, plain numbers written out."""
        return tuple(ServicePort(port) if isinstance(port, int) else port for port in self.ports)


def _check_service_ports(service: Service) -> None:
    seen = set()
    for item in service.port_list:
        where = f"service {service.name!r}: port {item.port}/{item.protocol}"
        if item.protocol not in ("TCP", "UDP"):
            raise InputError(f"{where}: unknown protocol", hint="use TCP or UDP")
        if not 1 <= item.port <= 65535 or not 0 <= item.target <= 65535:
            raise InputError(f"{where} is impossible", hint="use 1 to 65535")
        if item.node_port and (service.kind == "ClusterIP" or item.node_port not in NODE_PORTS):
            raise InputError(
                f"{where}: node port {item.node_port} is impossible",
                hint="use 30000 to 32767 with kind='NodePort'",
            )
        if (item.port, item.protocol) in seen:
            raise InputError(f"{where} is there twice", hint="remove one of them")
        seen.add((item.port, item.protocol))
