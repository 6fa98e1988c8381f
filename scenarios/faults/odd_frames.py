"""The datapath drops what it cannot judge: a strange protocol, half a datagram, a borrowed address.

client ──► from-container: CT_UNKNOWN_PROTO, FRAG_NOT_FOUND, INVALID_SIP
"""

from typing import Any

from lab import Lab, scenario
from lab.packets import frames, new_cookie, with_cookie
from lab.scenarios.faults import Ends, frame_lesson
from lab.trace import Step
from topologies.two_nodes import topology

HERE = {"place": "alpha", "hook": "cil_from_container", "step": Step.TC_INGRESS}
CASES: tuple[tuple[dict[str, Any], Ends], ...] = (
    ({"proto": 253}, Ends(**HERE, reason="CT_UNKNOWN_PROTO", why="Use TCP, UDP or ICMP")),
    ({"frag": 99}, Ends(**HERE, reason="FRAG_NOT_FOUND", why="first fragment")),
    ({"src": "10.0.1.200"}, Ends(**HERE, reason="INVALID_SIP", why="spoofed")),
)


@scenario(topology)
def odd_frames(lab: Lab) -> None:
    """The same frame with one field changed, and unchanged."""
    client, server = lab.pod("client"), lab.pod("server")
    for change, key in CASES:
        changed = dict(change)
        source = changed.pop("src", str(client.address))
        frame = frames.udp(
            (client.facts.mac, client.facts.lxc_mac), (source, str(server.address)), (4000, 5000),
            with_cookie(b"hello", new_cookie()), **changed,
        )  # fmt: skip
        frame_lesson(lab, "client", frame, key)
    lab.check("unchanged it arrives", lab.follow("client", "server").packets[0].delivered)
