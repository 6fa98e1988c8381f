"""Where the packet stands in the drawing at hooks that know no place."""

import pytest
from traces import DELIVERED, LXC, UPLINK

from lab.report.scene import GAP, scene
from topologies.two_nodes import topology

NOWHERE = ("", "", "")

# places of the hops -> places where the packet stands
WAYS = {
    "it stays where it was": ([LXC, NOWHERE, UPLINK], [LXC, LXC, UPLINK]),
    "at the beginning it is where it will be": ([NOWHERE, UPLINK], [UPLINK, UPLINK]),
    "several unknown places": ([LXC, NOWHERE, NOWHERE], [LXC, LXC, LXC]),
}


@pytest.mark.parametrize(("places", "stands"), WAYS.values(), ids=WAYS.keys())
def test_a_hook_without_a_device_happens_where_the_packet_is(places, stands):
    assert scene(topology, DELIVERED).along(places) == stands


def test_the_packet_never_jumps_into_the_corner():
    drawing = scene(topology, DELIVERED)
    ways = drawing.along([NOWHERE, *(hop.place for hop in DELIVERED.hops), NOWHERE])
    assert (GAP, GAP) not in [drawing.at(place) for place in ways]
