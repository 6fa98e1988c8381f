"""An XDP program judges the packet at step 2, before all others, and can end it in four ways.

client ──► alpha/lxcclient: dropped, aborted, sent back, sent aside to the server; a veth takes
the last two only if its other end polls (NAPI), and it does not
"""

from lab import Lab, scenario
from lab.scenarios.faults import Ends, Switch, lesson
from lab.trace import Step
from topologies.single_node import topology

KEYS = {
    "drop": ("", "XDP program dropped it"),
    "abort": ("", "XDP program dropped it"),
    "back": ("ENXIO", "sent it back, and the device's other end does not poll"),
    "aside": ("ENOTSUP", "redirected it to a device that cannot take frames"),
}


@scenario(topology)
def xdp_on_the_cable(lab: Lab) -> None:
    """One program after the other."""
    lab.pod("client").ping(lab.pod("server"))  # so that no ARP question meets the program first
    for verdict, (reason, why) in KEYS.items():
        if verdict == "aside" and not lab.can("xdp_features"):
            reason = "ENXIO"  # not the device is asked, at once, but its driver, at the end
        fault = Switch(
            "alpha",
            on=(f"ip link set dev lxcclient xdpdrv obj {{verdicts}} sec xdp/{verdict}",),
            off=("ip link set dev lxcclient xdpdrv off",),
        )
        key = Ends(place="alpha", hook="xdp", step=Step.XDP_DRIVER, reason=reason, why=why)
        lesson(lab, fault, key)
