"""What the lab knows of its manifests between two commands, in the lab's own directory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.codec import decode, encode
from lab.errors import InputError
from lab.k8s.objects import ClusterNode, Container, Meta, Namespace, Objects, PodObject, PodSpec
from lab.k8s.place import World, place
from lab.model import Topology
from lab.policy.objects import Semantics
from lab.runtime import Lab, registry

FILE = "kubernetes.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Objects of a lab and what became of them.

    Attributes:
        objects: everything applied and not deleted.
        semantics: whose policy promises hold.
        pids: ``namespace/pod`` -> process of its containers inside the lab.
        problems: ports and commands that did not start.
    """

    objects: Objects = field(default_factory=Objects)
    semantics: Semantics = Semantics.K8S
    pids: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def world(self, topology: Topology) -> World:
        """Place the objects where the running topology has them."""
        keep = {f"{p.namespace}/{p.name}": (p.node, str(p.address)) for p in topology.pods}
        return place(
            self.objects,
            name=topology.name,
            options=topology.options,
            keep=keep,
            nodes=topology.nodes,
        )


def path(lab: Lab) -> Path:
    """Return where a lab's state is kept; it goes with the lab."""
    return registry.run_dir() / lab.name / FILE


def load(lab: Lab) -> State:
    """Return the state of a lab; one that no manifest made is described by its topology.

    Raises:
        InputError: the file is not readable by this version.
    """
    try:
        data = json.loads(path(lab).read_text())
    except FileNotFoundError:
        return State(objects=objects_of(lab.topology))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path(lab)}: {error}", hint="bring the lab up again") from None
    state: State = decode(State, data)
    return state


def save(lab: Lab, state: State) -> None:
    """Write the state, whole or not at all."""
    draft = path(lab).with_suffix(".next")
    draft.write_text(json.dumps(encode(state)))
    draft.replace(path(lab))


def objects_of(topology: Topology) -> Objects:
    """Describe a hand-written topology as objects, so that manifests can be applied on top."""
    namespaces = dict.fromkeys(pod.namespace for pod in topology.pods)
    nodes = [
        ClusterNode(Meta(name=node.name, namespace=""), node.pod_cidr, node.address)
        for node in topology.nodes
    ]
    # `pause` serves nothing: whoever wrote the topology starts its servers
    pods = [
        PodObject(
            Meta(name=pod.name, namespace=pod.namespace, labels=dict(pod.labels)),
            PodSpec(containers=(Container(name="lab", image="pause"),), node_name=pod.node),
        )
        for pod in topology.pods
    ]
    spaces = [Namespace(Meta(name=name, namespace="")) for name in namespaces if name != "default"]
    return Objects((*nodes, *spaces, *pods))


def with_pids(state: State, pids: dict[str, int], gone: frozenset[str]) -> State:
    """Return the state with processes added and those of pods that are gone removed."""
    kept = {title: pid for title, pid in state.pids.items() if title not in gone}
    return replace(state, pids={**kept, **pids})
