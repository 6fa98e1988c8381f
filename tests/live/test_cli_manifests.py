"""The command line for manifests: what it prints, and how it refuses."""

import json
from pathlib import Path

import pytest

from lab.cli.root import run

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
SHOP = str(ROOT / "topologies/shop")


@pytest.fixture(scope="module")
def shop():
    assert run(["up", SHOP, "--name", "cli-shop"]) == 0
    yield "cli-shop"
    assert run(["down", "cli-shop"]) == 0


def printed(capsys, *words):
    capsys.readouterr()
    code = run(list(words))
    return code, capsys.readouterr()


def test_the_matrix_as_json_has_a_row_per_flow(shop, capsys):
    code, output = printed(capsys, "policy", "matrix", shop, "--ports", "80,53/udp", "-o", "json")
    rows = json.loads(output.out)
    assert code == 0
    assert len(rows) == 10 * 9 * 2
    assert set(rows[0]) == {"from", "to", "port", "protocol", "expected", "measured"}
    assert all(row["expected"] == row["measured"] for row in rows)
    assert {"world", "shop/web-1"} <= {row["from"] for row in rows}


@pytest.mark.parametrize("form", ["html", "svg"])
def test_the_matrix_as_a_picture(shop, capsys, form):
    code, output = printed(
        capsys, "policy", "matrix", shop, "--ports", "80", "--expected", "-o", form
    )
    assert code == 0
    assert "<svg" in output.out


def test_explain_names_rules_and_entries(shop, capsys):
    code, output = printed(capsys, "policy", "explain", shop, "web-1", "api-2", "--tcp", "8080")
    assert code == 0
    assert "networkpolicy/shop/web-to-api egress[0]" in output.out
    assert "networkpolicy/shop/api ingress[0]" in output.out
    assert output.out.count("in the map") == 2


def test_explain_names_what_isolates(shop, capsys):
    code, output = printed(
        capsys, "policy", "explain", shop, "web-1", "cache-1", "--tcp", "6379", "-o", "json"
    )
    found = json.loads(output.out)
    assert (code, found["expected"], found["reason"]) == (0, "deny", 133)
    assert "networkpolicy/shop/default-deny" in found["rules"]


def test_get_lists_pods_with_their_addresses(shop, capsys):
    _, output = printed(capsys, "get", shop, "pods", "-n", "shop", "-o", "json")
    pods = json.loads(output.out)
    assert [pod["metadata"]["name"] for pod in pods] == [
        "web-1",
        "web-2",
        "api-1",
        "api-2",
        "cache-1",
    ]
    assert all(pod["status"]["podIP"].startswith("10.0.") for pod in pods)


@pytest.mark.parametrize(
    "kind", ["services", "endpoints", "networkpolicies", "identities", "nodes", "deployments"]
)
def test_get_prints_a_table(shop, capsys, kind):
    code, output = printed(capsys, "get", shop, kind)
    assert code == 0
    assert len(output.out.splitlines()) > 1


def test_a_misspelt_manifest_exits_2_and_names_file_and_line(shop, capsys, tmp_path):
    text = (ROOT / "topologies/shop/90-policies.yaml").read_text().replace("egress:", "egres:", 1)
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    before = printed(capsys, "get", shop, "netpol", "-o", "yaml")[1].out
    code, output = printed(capsys, "apply", shop, "-f", str(file))
    assert code == 2
    line = next(n for n, words in enumerate(text.splitlines(), 1) if "egres:" in words)
    assert f"bad.yaml:{line}: spec.egres: unknown field" in output.err
    assert printed(capsys, "get", shop, "netpol", "-o", "yaml")[1].out == before


def test_apply_and_delete_say_what_they_did(shop, capsys, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        "metadata: {name: extra, namespace: data}\nspec: {podSelector: {}}\n"
    )
    assert (
        "networkpolicy/data/extra created" in printed(capsys, "apply", shop, "-f", str(file))[1].out
    )
    assert "unchanged" in printed(capsys, "apply", shop, "-f", str(file))[1].out
    assert (
        "networkpolicy/data/extra deleted"
        in printed(capsys, "delete", shop, "networkpolicy", "extra", "-n", "data")[1].out
    )


def test_diff_shows_what_a_change_would_do(capsys, tmp_path):
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        for file in Path(SHOP).iterdir():
            if name == "before" or file.name != "90-policies.yaml":
                (tmp_path / name / file.name).write_text(file.read_text())
    code, output = printed(
        capsys, "policy", "diff", str(tmp_path / "before"), str(tmp_path / "after"), "--ports", "80"
    )
    assert code == 1
    assert "+ world -> shop/api-1 80/tcp: deny -> allow" in output.out


def test_no_difference_exits_0(capsys):
    assert printed(capsys, "policy", "diff", SHOP, SHOP)[0] == 0
