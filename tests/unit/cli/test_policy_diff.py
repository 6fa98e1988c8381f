"""``lab policy diff``: whose promises it asks about, and files that are no truth tables."""

import pytest

from lab.cli.root import run

FILES = {
    "not JSON at all": ("{bad", "no valid YAML"),
    "a list of something else": ('[{"name": "x"}]', "is no truth table"),
}


@pytest.mark.parametrize(("text", "said"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_table_is_named(tmp_path, capsys, text, said):
    path = tmp_path / "table.json"
    path.write_text(text)
    assert run(["policy", "diff", str(path), str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and said in error and "bug" not in error


PODS = """
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: c, image: nginx}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: c, image: nginx}]}
"""
# to Kubernetes a network covers the pods in it, to Cilium none of them
TO_NETWORK = """---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}
"""


@pytest.mark.parametrize(("semantics", "code"), [("k8s", 0), ("cilium", 1)])
def test_both_sides_are_judged_by_the_promises_asked_for(tmp_path, capsys, semantics, code):
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    before.write_text(PODS)
    after.write_text(PODS + TO_NETWORK)
    words = ["policy", "diff", str(before), str(after), "--semantics", semantics]
    assert run(words) == code, capsys.readouterr().out
