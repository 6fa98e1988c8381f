"""What the agent tells about itself: one frozen value per endpoint, service, identity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """An endpoint: a pod, or the node itself.

    Attributes:
        id: 16 bits, unique on its node.
        node: where it is.
        pod: name of the pod, empty for the node's own endpoint.
        address: its IPv4 address.
        identity: security identity; ``labels`` are its sorted labels.
        ingress: whether a policy selects it for what comes in; ``egress`` for what goes out.
        state: ``ready`` or ``regenerating``.
        revision: how often its programs were exchanged since the lab came up.
        device: node's end of its veth pair, ``ifindex`` its index.
        directory: its state directory, as seen on the node.
    """

    id: int
    node: str
    pod: str
    address: str
    identity: int
    labels: tuple[str, ...]
    ingress: bool
    egress: bool
    state: str
    revision: int
    device: str
    ifindex: int
    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """A backend of a frontend; ``state`` is ``active`` or ``terminating``."""

    id: int
    address: str
    port: int
    node: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendStatus:
    """One address and port of a service.

    Attributes:
        id: of the frontend, its ``rev_nat_index``.
        kind: ``ClusterIP``, ``NodePort``, ``ExternalIP`` or ``LoadBalancer``.
        node: the node a NodePort address belongs to, else empty.
    """

    id: int
    service: str
    kind: str
    address: str
    port: int
    protocol: str
    node: str
    backends: tuple[BackendStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """A service as the agent realised it.

    Attributes:
        name: ``namespace/name``.
        address: its cluster IP, empty for a headless service.
        node_ports: as many as it has ports; 0 where there is none.
    """

    name: str
    kind: str
    address: str
    node_ports: tuple[int, ...]
    frontends: tuple[FrontendStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityStatus:
    """A security identity and who has it; ``networks`` are CIDRs, ``pods`` ``namespace/pod``."""

    id: int
    labels: tuple[str, ...]
    pods: tuple[str, ...]
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """The agent itself; ``started`` counts the agents this lab has had, seconds are up-time."""

    pid: int
    started: int
    up_s: float
    endpoints: int
    services: int
    policies: int
    policy_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one garbage collection of a node found and removed.

    Attributes:
        ct_seen: conntrack entries looked at; ``ct_deleted`` of them had expired.
        nat_seen: NAT entries looked at; ``nat_deleted`` had no conntrack entry any more.
        next_s: seconds until the next collection.
    """

    node: str
    ct_seen: int
    ct_deleted: int
    nat_seen: int
    nat_deleted: int
    next_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a node's set-up and what it is for."""

    name: str
    value: str
    meaning: str
