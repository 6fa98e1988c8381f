"""The picture of a topology: everything described is in it, and it fits the terminal."""

import pytest
from rich.cells import cell_len

from lab.model import Link, Node, Options, Pod, Topology
from lab.report.topology import picture_text
from topologies import single_node, three_nodes, two_nodes

ALL = {module.__name__: module.topology for module in (single_node, two_nodes, three_nodes)}
SHAPED = Topology(
    name="shaped",
    nodes=(Node("a"), Node("b")),
    pods=(Pod("a-pod-with-a-very-long-name-indeed", node="a", labels={"tier": "x" * 40}),),
    links=(Link("a", "b", rate_mbit=10, delay_ms=5),),
    options=Options(routing="native"),
)


@pytest.mark.parametrize("topology", ALL.values(), ids=ALL.keys())
def test_every_pod_and_node_is_in_the_picture(topology):
    text = picture_text(topology)
    names = [item.name for item in (*topology.nodes, *topology.pods)]
    assert [name for name in names if name not in text] == []


@pytest.mark.parametrize("width", [50, 80, 100, 200])
@pytest.mark.parametrize("topology", [*ALL.values(), SHAPED], ids=[*ALL, "long names"])
def test_the_boxes_fit(topology, width):
    boxes = [line for line in picture_text(topology, width=width).splitlines() if line[0] in "╭│╰"]
    assert max(cell_len(line) for line in boxes) <= min(width, 2 * 60 + 2)
    assert {line[-1] for line in boxes} <= set("╮│╯")


def test_addresses_identity_and_hooks_are_those_of_the_plan():
    text = picture_text(two_nodes.topology)
    assert "client  10.0.1.10  id 256  app=client" in text
    assert "lxcclient  ep 266  from-container" in text


def test_links_are_described_and_native_routing_has_no_tunnel_device():
    text = picture_text(SHAPED)
    assert "a ↔ b: 10 Mbit/s, 5 ms" in text
    assert "cilium_vxlan" not in text
