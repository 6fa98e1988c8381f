"""What an agent can be told to realise, and the titles by which it is told to take it back."""

from __future__ import annotations

from lab.errors import InputError
from lab.model import Namespace, Service
from lab.policy.objects import CiliumPolicy, Cluster, NetworkPolicy, Policy, Semantics

Description = Service | Namespace | Policy | Cluster | Semantics
"""What an agent can be told to realise."""


def describe(value: object) -> str:
    """Return the title by which an agent knows a description.

    Raises:
        InputError: it has none.
    """
    match value:
        case str():
            return value
        case Service():
            return f"service/{value.title}"
        case Namespace():
            return f"namespace/{value.name}"
        case NetworkPolicy() | CiliumPolicy():
            return value.title
    raise InputError(f"{value!r} cannot be deleted", hint="give a service, a policy or its title")
