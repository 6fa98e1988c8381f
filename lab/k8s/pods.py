"""Containers of a running lab: start and stop them, and find out which pods are ready."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from lab.errors import InputError
from lab.k8s.containers import arguments
from lab.k8s.objects import Container, PodObject, Probe
from lab.k8s.place import World
from lab.k8s.servers import Listener, listeners_of, server_of
from lab.runtime import Lab
from lab.runtime.messages import receive
from lab.runtime.start import raise_error

SERVICE = "lab.k8s.containers"
_PROBERS = 8
# as the kubelet judges it: redirects are good answers, too; a server may speak HTTP/1.0
_GOOD = re.compile(rb"HTTP/1\.[01] [23]\d\d ")


def lab_name(title: str) -> str:
    """Return how the lab calls the pod that Kubernetes calls ``namespace/name``."""
    return title.removeprefix("default/")


def check_containers(pods: Iterable[PodObject]) -> None:
    """Refuse pods that cannot serve what they say.

    Raises:
        InputError: two containers of a pod serve one port, or a probe names a port there is not.
    """
    for pod in pods:
        listeners_of(pod)
        for container in pod.spec.containers:
            if container.readiness is not None:
                probe_port(pod, container.readiness)


def unrealised(pods: Iterable[PodObject]) -> tuple[str, ...]:
    """Return one line per thing that pods ask for and the lab does not do."""
    return tuple(
        f"pod {pod.meta.title}: hostPort {port.host_port} is not opened on the node"
        for pod in pods
        for container in pod.spec.containers
        for port in container.ports
        if port.host_port is not None
    )


def start_containers(
    lab: Lab, pods: Sequence[PodObject], names: Mapping[str, list[str]]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Start the containers of pods that are up.

    Args:
        lab: that holds the pods.
        pods: whose containers are not running yet.
        names: DNS name -> addresses, for name servers among them.

    Returns:
        ``namespace/pod`` -> process id inside the lab, and one line per problem.
    """
    connections: list[tuple[PodObject, socket.socket]] = []
    for pod in pods:
        commands = tuple(command for c in pod.spec.containers if (command := server_of(c).command))
        asked = arguments(pod.meta.title, listeners_of(pod), commands, dict(names))
        place = lab.pod(lab_name(pod.meta.title))
        connections.append((pod, lab.keeper.spawn(SERVICE, place.name, **asked)))
    # all of them were asked to start before the first is waited for
    pids: dict[str, int] = {}
    problems: list[str] = []
    for pod, connection in connections:
        with connection:
            answer, _ = receive(connection)
            raise_error(answer)
        pids[pod.meta.title] = answer["pid"]
        problems += [f"pod {pod.meta.title}: {line}" for line in answer["problems"]]
    return pids, tuple(problems)


def stop_containers(lab: Lab, node: str, pids: Iterable[int]) -> None:
    """Stop processes that :func:`start_containers` started; gone ones are fine."""
    words = [str(pid) for pid in pids]
    if words:
        lab.node(node).run(["kill", "-KILL", *words])


def ready_pods(lab: Lab, world: World) -> frozenset[str]:
    """Probe every container with a readiness probe from its node, as the kubelet does.

    Returns:
        ``namespace/pod`` of pods whose containers all are ready; those without probes are.
    """
    nodes = {f"{pod.namespace}/{pod.name}": pod.node for pod in world.topology.pods}
    work: dict[str, list[tuple[PodObject, Container]]] = {}
    unready: set[str] = set()
    for pod in world.pods:
        for container in pod.spec.containers:
            if container.readiness is not None:
                work.setdefault(nodes[pod.meta.title], []).append((pod, container))

    def probe(node: str) -> None:
        # one worker per node: its probes follow one another
        for pod, container in work[node]:
            assert container.readiness is not None
            if not _passes(lab, node, pod, container.readiness):
                unready.add(pod.meta.title)

    with ThreadPoolExecutor(_PROBERS) as pool:
        list(pool.map(probe, work))
    return frozenset(pod.meta.title for pod in world.pods) - unready


def probe_port(pod: PodObject, probe: Probe) -> int:
    """Return the number of a probe's port.

    Raises:
        InputError: no container port has that name.
    """
    if isinstance(probe.port, int):
        return probe.port
    for container in pod.spec.containers:
        for port in container.ports:
            if port.name == probe.port:
                return port.number
    raise InputError(
        f"{pod.meta.source}: pod {pod.meta.title!r}: its readiness probe names port "
        f"{probe.port!r}, which no container has",
        hint="name one of the container ports, or write the number",
    )


def _passes(lab: Lab, node: str, pod: PodObject, probe: Probe) -> bool:
    place = lab.pod(lab_name(pod.meta.title))
    if probe.kind == "exec":
        return place.run(list(probe.command), timeout_s=probe.timeout_s).returncode == 0
    request = f"GET {probe.path} HTTP/1.1\r\nHost: {pod.meta.name}\r\n\r\n".encode()
    payload = request if probe.kind == "httpGet" else b""
    # from the node, as the kubelet does: policies let a pod's own node in
    answer = lab.node(node).connect(
        place.address, probe_port(pod, probe), payload=payload, timeout_s=probe.timeout_s
    )
    if probe.kind == "httpGet":
        return _GOOD.match(answer.reply) is not None
    return answer.ok


def listeners_by_pod(pods: Iterable[PodObject]) -> dict[str, tuple[Listener, ...]]:
    """Return what each pod serves: ``namespace/pod`` -> listeners."""
    return {pod.meta.title: listeners_of(pod) for pod in pods}
