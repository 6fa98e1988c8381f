"""What an agent must know to take over from the one before: objects, numbers, counters.

One JSON file in the lab's private ``/run``, exchanged atomically, so that a killed agent leaves
the last complete state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab import codec
from lab.model import Namespace, Service
from lab.plan.steps import NODES_DIR
from lab.policy.objects import Cluster, Policy

PATH = Path(NODES_DIR, "agent.json")


@dataclass(slots=True)
class Numbers:
    """Numbers that must not change while somebody uses them.

    Attributes:
        frontends: ``node address port protocol`` -> ``rev_nat_index``.
        backends: ``address port protocol`` -> backend id.
        addresses: what an address was chosen for -> address.
        node_ports: service and port -> node port.
        last: table -> the number given last; a number that was given back waits for its next turn.
    """

    frontends: dict[str, int] = field(default_factory=dict)
    backends: dict[str, int] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    node_ports: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Numbers:
        """Return numbers of its own, equal to these."""
        return Numbers(
            dict(self.frontends),
            dict(self.backends),
            dict(self.addresses),
            dict(self.node_ports),
            dict(self.last),
        )


@dataclass(slots=True)
class State:
    """Everything an agent has been told, and the numbers it gave.

    Attributes:
        started: how many agents this lab has had.
        semantics: whose policy promises hold, ``k8s`` or ``cilium``.
        identities: sorted labels -> number; ``networks`` CIDR -> number.
        cluster: pods and namespaces with what only policies know of them, if given.
        revisions: ``node id`` -> how often an endpoint's programs were exchanged.
    """

    started: int = 0
    semantics: str = "k8s"
    policy_revision: int = 0
    services: dict[str, Service] = field(default_factory=dict)
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    policies: dict[str, tuple[Policy, ...]] = field(default_factory=dict)
    identities: dict[tuple[str, ...], int] = field(default_factory=dict)
    networks: dict[str, int] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=Numbers)
    cluster: Cluster | None = None
    revisions: dict[str, int] = field(default_factory=dict)
    _policies: tuple[dict[str, tuple[Policy, ...]], str] | None = field(
        default=None, repr=False, compare=False
    )
    _cluster: tuple[Cluster | None, str] | None = field(default=None, repr=False, compare=False)

    def save(self, path: Path = PATH) -> None:
        """Write the state so that a reader sees the old or the new one, whole."""
        large = {"policies": self._policy_text(), "cluster": self._cluster_text()}
        data = {
            "started": self.started,
            "semantics": self.semantics,
            "policy_revision": self.policy_revision,
            "services": codec.encode(list(self.services.values())),
            "namespaces": codec.encode(list(self.namespaces.values())),
            "identities": [[list(key), number] for key, number in self.identities.items()],
            "networks": self.networks,
            "numbers": asdict(self.numbers),
            "revisions": self.revisions,
        }
        staged = path.with_suffix(".next")
        # texts that are kept ready are pasted in: encoding them again is what costs
        parts = ", ".join(f'"{name}": {text}' for name, text in large.items())
        staged.write_text(json.dumps(data)[:-1] + f", {parts}}}")
        staged.replace(path)

    def _policy_text(self) -> str:
        # a thousand policies take longer to write down than all else that a label change needs
        if self._policies is None or self._policies[0] != self.policies:
            self._policies = dict(self.policies), json.dumps(codec.encode(self.policies))
        return self._policies[1]

    def _cluster_text(self) -> str:
        if self._cluster is None or self._cluster[0] is not self.cluster:
            self._cluster = self.cluster, json.dumps(codec.encode(self.cluster))
        return self._cluster[1]

    @classmethod
    def load(cls, path: Path = PATH) -> State:
        """Return the state an earlier agent saved, or an empty one."""
        try:
            data: Mapping[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        services = codec.decode(tuple[Service, ...], data["services"])
        namespaces = codec.decode(tuple[Namespace, ...], data["namespaces"])
        return cls(
            started=data["started"],
            semantics=data["semantics"],
            policy_revision=data["policy_revision"],
            services={item.title: item for item in services},
            namespaces={item.name: item for item in namespaces},
            policies=codec.decode(dict[str, tuple[Policy, ...]], data["policies"]),
            identities={tuple(key): number for key, number in data["identities"]},
            networks=dict(data["networks"]),
            numbers=Numbers(**data["numbers"]),
            cluster=codec.decode(Cluster | None, data["cluster"]),
            revisions=dict(data["revisions"]),
        )
