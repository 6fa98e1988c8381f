"""A node finds its pods in a map: without the entry, or with a wrong one, the packet is not theirs.

client ──► beta: cilium_lxc has no entry for server, another MAC address, another endpoint
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from lab import Lab, scenario
from lab.scenarios.faults import Ends, lesson
from lab.trace import Step
from topologies.two_nodes import topology

CASES = (
    (None, Ends(place="beta", hook="cil_from_host", reason="UNROUTABLE",
     why="does not know that server is here")),
    ({"mac": "02:00:00:00:00:99"}, Ends(place="server", hook="ip_rcv", step=Step.IP_RCV,
     reason="OTHERHOST", why="cilium_lxc 10.0.2.10: mac 02:00:00:00:00:99")),
    ({"lxc_id": 999}, Ends(place="beta", hook="cil_from_overlay", step=Step.TC_INGRESS,
     reason="EP_NOT_READY", why="endpoint 999")),
)  # fmt: skip


@contextmanager
def other_entry(lab: Lab, change: dict[str, object] | None) -> Iterator[None]:
    """The entry of the server is gone, or changed, while the block runs."""
    with lab.node("beta").map("cilium_lxc") as endpoints:
        address = lab.pod("server").address
        key, value = next(pair for pair in endpoints.items() if pair[0].ip4 == address)
        if change is None:
            endpoints.delete(key)
        else:
            endpoints.update(key, replace(value, **change))
        try:
            yield
        finally:
            endpoints.update(key, value)


@scenario(topology)
def lost_endpoint(lab: Lab) -> None:
    """Three faults in one entry."""
    lab.agent.status()  # it has written its maps once it answers
    for change, key in CASES:
        lesson(lab, other_entry(lab, change), key)
