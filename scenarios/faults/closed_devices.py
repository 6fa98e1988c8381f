"""A device that is down drops nothing: what was for it goes elsewhere, or is taken by nobody.

beta/eth0 down: the bridge knows nobody with that address any more, everybody gets the frame;
cilium_vxlan down at beta: the tunnel's port is closed; at alpha: it takes nothing to wrap
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, lesson
from lab.trace import Step
from topologies.two_nodes import topology

CASES = (
    ("beta", "eth0", Ends(place="world", hook="ip_rcv", step=Step.IP_RCV, reason="OTHERHOST",
     why="eth0 in beta is down")),
    ("beta", "cilium_vxlan", Ends(place="beta", hook="udp_rcv", step=Step.L4_RECEIVE,
     reason="NO_SOCKET", why="cilium_vxlan in beta is down")),
    ("alpha", "cilium_vxlan", Ends(place="alpha", hook="qdisc_enqueue",
     why="cilium_vxlan in alpha is down")),
)  # fmt: skip


@scenario(topology)
def closed_devices(lab: Lab) -> None:
    """Three devices, each closed and opened again."""
    lab.pod("client").ping(lab.pod("server"))  # the nodes know each other's MAC addresses now
    for place, device, key in CASES:
        fault = Switch(place, on=(f"ip link set {device} down",), off=(f"ip link set {device} up",))
        lesson(lab, fault, key)
