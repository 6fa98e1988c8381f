"""Scenarios: one claim about the network each, as sentences with truth values."""

from lab.scenarios.check import Check
from lab.scenarios.files import load_scenarios, load_topology
from lab.scenarios.run import Report, Scenario, Stage, scenario

__all__ = [
    "Check",
    "Report",
    "Scenario",
    "Stage",
    "load_scenarios",
    "load_topology",
    "scenario",
]
