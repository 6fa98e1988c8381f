"""Services of manifests as the services of the lab: backends, named ports, addresses."""

from __future__ import annotations

from collections.abc import Mapping

from lab.errors import InputError
from lab.k8s.objects import EndpointsObject, PodObject, ServiceObject, ServicePort
from lab.k8s.place import World
from lab.model import Backend, Service
from lab.model import ServicePort as LabPort
from lab.names import did_you_mean


def services_of(world: World, ready: frozenset[str]) -> tuple[Service, ...]:
    """Return the services that the datapath translates; headless and external ones have none.

    Args:
        world: placed manifests.
        ready: ``namespace/pod`` of the pods that are.

    Raises:
        InputError: endpoints of no service, or a protocol that services cannot have here.
    """
    services = world.objects.of(ServiceObject)
    _check_endpoints(world, services)
    return tuple(
        _service(world, service, ready)
        for service in services
        if service.kind != "ExternalName" and service.cluster_ip is not None
    )


def _check_endpoints(world: World, services: tuple[ServiceObject, ...]) -> None:
    known = {service.meta.title for service in services}
    for item in world.objects.of(EndpointsObject):
        title = f"{item.meta.namespace}/{item.service}"
        if title not in known:
            raise InputError(
                f"{item.meta.source}: service {title!r} does not exist",
                hint=did_you_mean(title, known),
            )


def _service(world: World, service: ServiceObject, ready: frozenset[str]) -> Service:
    for port in service.ports:
        if port.protocol not in ("TCP", "UDP"):
            raise InputError(
                f"{service.meta.source}: service {service.meta.title!r}: port {port.port} is "
                f"{port.protocol}",
                hint="the datapath translates TCP and UDP",
            )
    return Service(
        name=service.meta.name,
        namespace=service.meta.namespace,
        ports=tuple(_port(port, number) for number, port in enumerate(service.ports)),
        backends=_backends(world, service, ready),
        kind=service.kind,
        cluster_ip=service.cluster_ip or "",
        external_ips=service.external_ips,
        load_balancer_ip=service.load_balancer_ip,
        source_ranges=service.source_ranges,
        affinity_s=service.affinity_s,
        external_local=service.external_local,
        internal_local=service.internal_local,
    )


def _name(port: ServicePort, number: int) -> str:
    return port.name or f"port-{number}"


def _port(port: ServicePort, number: int) -> LabPort:
    return LabPort(
        port=port.port,
        # a name may be another number in each pod: the backends carry it
        target=port.target if isinstance(port.target, int) else 0,
        protocol=port.protocol,
        node_port=port.node_port,
        name=_name(port, number),
    )


def _backends(
    world: World, service: ServiceObject, ready: frozenset[str]
) -> tuple[Backend | str, ...]:
    # an empty selector selects nothing, as none: somebody else writes the endpoints
    if not service.selector:
        return _given_backends(world, service)
    found: list[Backend | str] = []
    for pod in selected_pods(world, service):
        for number, port in enumerate(service.ports):
            target = target_port(pod, port)
            if target is not None:
                found.append(
                    Backend(
                        pod=pod.meta.title,
                        port_name=_name(port, number),
                        port=target,
                        ready=service.publish_not_ready or pod.meta.title in ready,
                    )
                )
    return tuple(found)


def selected_pods(world: World, service: ServiceObject) -> tuple[PodObject, ...]:
    """Return the pods of a service's namespace that its selector selects."""
    if not service.selector:
        return ()
    wanted = dict(service.selector)
    return tuple(
        pod
        for pod in world.pods
        if pod.meta.namespace == service.meta.namespace
        and all(pod.meta.labels.get(key) == value for key, value in wanted.items())
    )


def target_port(pod: PodObject, port: ServicePort) -> int | None:
    """Return the number that a service's port has in a pod; ``None`` if it names none there."""
    if isinstance(port.target, int):
        return port.target
    for container in pod.spec.containers:
        for known in container.ports:
            if (known.name, known.protocol) == (port.target, port.protocol):
                return known.number
    return None


def _given_backends(world: World, service: ServiceObject) -> tuple[Backend | str, ...]:
    pods = {pod.address: f"{pod.namespace}/{pod.name}" for pod in world.topology.pods}
    found: list[Backend | str] = []
    for item in world.objects.of(EndpointsObject):
        if (item.meta.namespace, item.service) != (service.meta.namespace, service.meta.name):
            continue
        for name, number, protocol in item.ports:
            for place, port in enumerate(service.ports):
                # an only port may have no name, in the service as in its endpoints
                if port.protocol != protocol or port.name != name:
                    continue
                for address in item.addresses:
                    pod = pods.get(address.address, "")
                    found.append(
                        Backend(
                            pod=pod,
                            address="" if pod else address.address,
                            port_name=_name(port, place),
                            port=number,
                            ready=address.ready,
                            terminating=address.terminating,
                        )
                    )
    return tuple(found)


def names_of(world: World, addresses: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the DNS names of a cluster: services, pods of headless ones.

    Args:
        world: placed manifests.
        addresses: ``namespace/service`` -> cluster IP.
    """
    places = {f"{p.namespace}/{p.name}": str(p.address) for p in world.topology.pods}
    found: dict[str, list[str]] = {}
    for service in world.objects.of(ServiceObject):
        meta = service.meta
        full = f"{meta.name}.{meta.namespace}.svc.cluster.local"
        pods = selected_pods(world, service)
        # Kubernetes DNS: a headless name means its pods, any other the cluster IP
        if service.cluster_ip is None:
            found[full] = [places[pod.meta.title] for pod in pods]
            for pod in pods:
                found[f"{pod.meta.name}.{full}"] = [places[pod.meta.title]]
        elif meta.title in addresses:
            found[full] = [addresses[meta.title]]
    return found
