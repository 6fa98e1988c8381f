"""``lab graph``: every kind of picture, to the terminal and into a file."""

import json
from xml.etree import ElementTree

import pytest

from lab.cli.root import run
from lab.model import Topology
from topologies.two_nodes import topology

KINDS = {
    "text": "╭─ alpha 172.30.0.1",
    "svg": "<svg",
    "html": "<!DOCTYPE html>",
    "mermaid": "flowchart TB",
    "json": '"name": "two-nodes"',
}


@pytest.mark.parametrize(("kind", "holds"), KINDS.items(), ids=KINDS.keys())
def test_a_picture_of_each_kind_is_printed(capsys, kind, holds):
    assert run(["graph", "topologies/two_nodes.py", "-o", kind]) == 0
    assert holds in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "holds"), KINDS.items(), ids=KINDS.keys())
def test_the_same_picture_goes_into_a_file(tmp_path, kind, holds):
    path = tmp_path / "picture"
    assert run(["graph", "topologies/two_nodes.py", "-o", kind, "--to", str(path)]) == 0
    assert holds in path.read_text()


def test_svg_is_xml_and_json_is_the_topology(tmp_path):
    for kind in ("svg", "json"):
        run(["graph", "topologies/two_nodes.py", "-o", kind, "--to", str(tmp_path / kind)])
    ElementTree.parse(tmp_path / "svg")
    assert Topology.from_json(json.loads((tmp_path / "json").read_text())) == topology


WRONG = {
    "no such file or lab": (["graph", "topologies/two_node.py"], "did you mean 'two_nodes.py'"),
    "a file that cannot be written": (
        ["graph", "topologies/two_nodes.py", "-o", "svg", "--to", "/no/such/place"], "cannot write",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_one_clear_line(capsys, arguments, says):
    assert run(arguments) == 2
    assert says in capsys.readouterr().err


def test_manifests_are_a_topology_too(capsys):
    assert run(["graph", "topologies/shop"]) == 0
    assert "shop/web-1" in capsys.readouterr().out
