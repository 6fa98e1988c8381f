"""The table in the docs names every case, once, with the state the suite gives it."""

import re
from pathlib import Path

from lab.k8s.conformance.cases import CASES
from lab.k8s.conformance.left_out import NOT_APPLICABLE
from lab.k8s.conformance.runner import case_names
from lab.k8s.read import read_text

TABLE = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"


def test_the_docs_name_every_case():
    rows = re.findall(r"^\| (\S+) \| (yes|no) \|", TABLE.read_text(), re.M)
    wanted = [(name, "yes") for name in case_names()] + [(name, "no") for name in NOT_APPLICABLE]
    assert rows == wanted


def test_every_case_is_a_readable_manifest():
    for case in CASES:
        read_text(case.policies, case.name)
        assert case.flows
