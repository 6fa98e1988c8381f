"""The datapath's part of the plan: which objects on which devices, and the first map entries."""

from __future__ import annotations

from collections.abc import Iterator

from lab.plan.inventory import Inventory, NodeFacts
from lab.plan.steps import Step


def datapath_steps(facts: Inventory, node: NodeFacts) -> Iterator[Step]:
    """Yield the steps that load and attach a node's datapath and fill its maps."""
    yield from ()
