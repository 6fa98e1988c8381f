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
from lab.trace.own import Attach, Probe

__all__ = [
    "Attach",
    "Backend",
    "Lab",
    "Link",
    "Namespace",
    "Node",
    "Options",
    "Pod",
    "Probe",
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
