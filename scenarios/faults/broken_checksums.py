"""A wrong checksum is noticed by whoever checks it first: IP at step 10, UDP at step 16.

client ──► server, from namespace to namespace without programs between
"""

from lab import Lab, scenario
from lab.packets import frames, new_cookie, with_cookie
from lab.scenarios.faults import Ends, frame_lesson
from lab.trace import Step
from topologies.single_node import topology

SUMS = {
    "IP": (slice(24, 26), Ends(place="server", hook="ip_rcv", step=Step.IP_RCV,
           reason="IP_CSUM", why="IP header checksum")),
    "UDP": (slice(40, 42), Ends(place="server", hook="udp_rcv", step=Step.L4_RECEIVE,
            reason="UDP_CSUM", why="UDP checksum")),
}  # fmt: skip


@scenario(topology)
def broken_checksums(lab: Lab) -> None:
    """The same frame on the pod's cable with one sum changed, and unchanged."""
    server = lab.pod("server")
    addresses = str(lab.pod("client").address), str(server.address)
    macs, ports = (server.facts.lxc_mac, server.facts.mac), (4000, 5000)
    for at, key in SUMS.values():
        frame = bytearray(frames.udp(macs, addresses, ports, with_cookie(b"hello", new_cookie())))
        frame[at] = bytes(byte ^ 0x55 for byte in frame[at])
        frame_lesson(lab, "alpha", bytes(frame), key, device=server.facts.lxc)
    whole = frames.udp(macs, addresses, ports, with_cookie(b"hello", new_cookie()))
    with server.serve_udp(5000), lab.trace() as seen:
        lab.node("alpha").inject(whole, device=server.facts.lxc)
    lab.check("whole it arrives", any(trace.delivered for trace in seen.packets))
