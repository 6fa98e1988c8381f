"""A packet that is larger than the next device takes ends at the device before it.

client ── 1244 bytes ──► beta/lxcserver, whose other end takes 600
"""

from dataclasses import replace

from lab import Lab, scenario
from lab.scenarios.faults import UDP, Ends, Switch, lesson
from topologies.two_nodes import topology

FAULT = Switch("server", on=("ip link set eth0 mtu 600",), off=("ip link set eth0 mtu 1450",))
KEY = Ends(place="beta", hook="dev_xmit", why="more than eth0 in server takes (MTU 600)")


@scenario(topology)
def too_large(lab: Lab) -> None:
    """Large through the narrow device, and small; large through the wide one."""
    large = replace(UDP, payload=bytes(1200))
    lesson(lab, FAULT, KEY, large)
    with FAULT.turned(lab):
        lab.check("a small one passes", lab.follow("client", "server").packets[0].delivered)
