"""Drawings: well-formed, with everything described, with boxes that do not overlap."""

from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest
from traces import DELIVERED, LXC, REFUSED, SERVER

from lab.model import Node, Options, Pod, Topology
from lab.report.scene import scene
from lab.report.svg import topology_svg, trace_svg
from topologies import single_node, three_nodes, two_nodes

MANY = Topology(
    name="many",
    nodes=(Node("a"), Node("b")),
    pods=(*(Pod(f"p{n}", node="a") for n in range(9)), Pod("x", node="b", namespace="shop")),
    options=Options(routing="native"),
)
ALL = {t.name: t for t in (single_node.topology, two_nodes.topology, three_nodes.topology, MANY)}


def words(svg):
    return {element.text for element in ElementTree.fromstring(svg).iter() if element.text}


@pytest.mark.parametrize("topology", ALL.values(), ids=ALL.keys())
def test_the_drawing_names_every_node_and_pod(topology):
    names = {item.full_name for item in topology.pods} | {node.name for node in topology.nodes}
    assert names <= words(topology_svg(topology))


@pytest.mark.parametrize("topology", ALL.values(), ids=ALL.keys())
def test_devices_do_not_cover_each_other(topology):
    chips = [box for box in scene(topology).boxes if box.kind in ("device", "stack", "port")]
    covering = [
        (one.label, other.label)
        for one, other in combinations(chips, 2)
        if one.x < other.x + other.width and other.x < one.x + one.width
        and one.y < other.y + other.height and other.y < one.y + one.height
    ]  # fmt: skip
    assert covering == []


@pytest.mark.parametrize("topology", ALL.values(), ids=ALL.keys())
def test_everything_is_inside_the_drawing(topology):
    drawing = scene(topology)
    assert all(box.x >= 0 and box.x + box.width <= drawing.width for box in drawing.boxes)
    assert all(box.y >= 0 and box.y + box.height <= drawing.height for box in drawing.boxes)


def test_a_trace_alone_is_enough_for_a_drawing():
    assert {"client", "lxcclient", "server", "alpha", "beta"} <= words(trace_svg(DELIVERED))


def test_places_of_a_trace_are_found_in_the_drawing_of_its_topology():
    drawing = scene(two_nodes.topology, DELIVERED)
    assert {drawing.key(hop.place) for hop in DELIVERED.taken} == {
        "/".join(hop.place) for hop in DELIVERED.taken
    }


def test_a_drop_is_drawn_as_such_where_it_happened():
    root = ElementTree.fromstring(trace_svg(REFUSED))
    drops = [one for one in root.iter() if one.get("class") == "stop drop"]
    assert [next(one.itertext()) for one in drops] == [
        "tc ingress on lxcclient: dropped, Invalid source ip"
    ]


def test_an_unknown_device_stands_in_its_namespace():
    drawing = scene(two_nodes.topology, DELIVERED)
    assert drawing.key((*SERVER[:2], "tun7")) == drawing.key((*SERVER[:2], ""))
    assert drawing.key((*LXC[:2], "")) == "alpha/alpha/"


def test_in_a_crowd_only_those_who_met_the_packet_are_drawn():
    pods = tuple(Pod(f"p{n}", node="alpha") for n in range(5))
    crowd = replace(
        two_nodes.topology,
        nodes=(*two_nodes.topology.nodes, Node("gamma")),
        pods=two_nodes.topology.pods + pods,
    )
    labels = {box.label: box.notes for box in scene(crowd, DELIVERED).boxes}
    assert {"client", "server", "alpha", "beta"} <= labels.keys()
    assert not {"p0", "web", "gamma"} & labels.keys()
    assert "6 more pods" in labels["alpha"]
