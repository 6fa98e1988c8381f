"""What the agent answers when asked what there is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lab.agent.services import Frontend
from lab.agent.status import (
    BackendStatus,
    EndpointStatus,
    FrontendStatus,
    IdentityStatus,
    ServiceStatus,
)
from lab.model import Service
from lab.plan.inventory import PodFacts

if TYPE_CHECKING:
    from lab.agent.agent import Agent


def endpoint(agent: Agent, node: str, name: str) -> EndpointStatus:
    """Return one endpoint by id or name.

    Raises:
        InputError: the node has none of it.
    """
    target = agent.endpoints.find(node, name)
    number = target.endpoint_id if isinstance(target, PodFacts) else target.host_endpoint_id
    return next(item for item in agent.endpoints.all() if (item.node, item.id) == (node, number))


def services(agent: Agent) -> tuple[ServiceStatus, ...]:
    """Return the services in the order they were applied, with their frontends."""
    return statuses(agent.state.services.values(), agent.frontends)


def statuses(
    services: Iterable[Service], frontends: Iterable[Frontend]
) -> tuple[ServiceStatus, ...]:
    """Return what became of services, in their order, out of all frontends there are."""
    # grouped first: ten thousand services would each look through the frontends of all
    mine: dict[str, list[Frontend]] = {}
    for frontend in frontends:
        mine.setdefault(frontend.service.title, []).append(frontend)
    return tuple(status_of(item, mine.get(item.title, ())) for item in services)


def status_of(service: Service, frontends: Iterable[Frontend]) -> ServiceStatus:
    """Return what became of a service, out of all frontends there are."""
    mine = [item for item in frontends if item.service.title == service.title]
    # a set: a node port has a frontend for each address of each node
    ports = {item.port for item in mine if item.kind == "NodePort"}
    address = next((item.address for item in mine if item.kind == "ClusterIP"), "")
    return ServiceStatus(
        name=service.title,
        kind=service.kind,
        address=str(address),
        node_ports=tuple(sorted(ports)),
        frontends=tuple(_frontend(item) for item in mine),
    )


def _frontend(item: Frontend) -> FrontendStatus:
    return FrontendStatus(
        id=item.id,
        service=item.service.title,
        kind=item.kind,
        address=str(item.address),
        port=item.port,
        protocol=item.protocol,
        node=item.node,
        backends=tuple(
            BackendStatus(
                id=backend.id,
                address=str(backend.address),
                port=backend.port,
                node=backend.node,
                state="terminating" if backend.terminating else "active",
            )
            for backend in item.backends
        ),
    )


def identities(agent: Agent) -> tuple[IdentityStatus, ...]:
    """Return every identity that somebody has or that is reserved, by number."""
    compiled = agent.compiled
    # nothing is compiled before the agent has taken over
    if compiled is None:
        return ()
    pods: dict[int, list[str]] = {}
    for name, number in compiled.identity_of.items():
        pods.setdefault(number, []).append(name)
    networks: dict[int, list[str]] = {}
    for network, number in compiled.networks.items():
        networks.setdefault(number, []).append(network)
    return tuple(
        IdentityStatus(
            id=number,
            labels=item.labels,
            pods=tuple(pods.get(number, ())),
            networks=tuple(networks.get(number, ())),
        )
        for number, item in sorted(compiled.identities.items())
    )
