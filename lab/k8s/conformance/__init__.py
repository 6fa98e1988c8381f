"""Cilium's connectivity tests by their names: cases as data, and what runs them on a lab."""

from lab.k8s.conformance.runner import CaseResult, run

__all__ = ["CaseResult", "run"]
