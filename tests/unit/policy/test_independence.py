"""The oracle must not borrow from what it judges."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ALLOWED = {"lab.policy.objects", "lab.policy.oracle", "lab.errors"}


def test_the_oracle_imports_descriptions_only():
    strangers = set()
    for path in (ROOT / "lab/policy/oracle").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lab"):
                module = node.module or ""
                if not module.startswith("lab.policy.oracle") and module not in ALLOWED:
                    strangers.add(module)
    assert not strangers
