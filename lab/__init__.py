"""A network emulation testbed and teaching lab for the eBPF datapath of Kubernetes."""

from lab.model import (
    Backend,
    Link,
    Namespace,
    Node,
    Options,
    Pod,
    Service,
    ServicePort,
    Topology,
)

__all__ = [
    "Backend",
    "Lab",
    "Link",
    "Namespace",
    "Node",
    "Options",
    "Pod",
    "Service",
    "ServicePort",
    "Topology",
    "scenario",
]


def __getattr__(name: str) -> object:
    # Lab pulls in the runtime; a topology file read without root must not pay for it.
    if name == "Lab":
        from lab.runtime import Lab

        return Lab
    if name == "scenario":
        from lab.scenarios import scenario

        return scenario
    raise AttributeError(name)
