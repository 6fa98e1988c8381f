"""From a description to the ordered list of steps that builds it: pure, printable, no root.

``plan(topology)`` is what ``lab up`` runs and what ``lab plan`` prints; a live test runs the
printed lines with ``ip``, ``tc`` and ``bpftool`` and compares the kernel's state.
"""

from lab.plan.build import plan
from lab.plan.inventory import Inventory, NodeFacts, PodFacts, inventory
from lab.plan.steps import Step

__all__ = ["Inventory", "NodeFacts", "PodFacts", "Step", "inventory", "plan"]
