"""The VNI says who sent a packet, and the receiving node believes it: so policy judges a number.

alpha/eth0 ── VXLAN, VNI = identity ──► beta: the client's own passes its policy, one that nobody
has meets no entry (POLICY), and nobody outside may be the host (INVALID_IDENTITY)
"""

from lab import Lab, scenario
from lab.packets import frames, new_cookie, with_cookie
from lab.policy.objects import NetworkPolicy, NetworkRule, Peer, Selector
from lab.scenarios.faults import Ends, frame_lesson
from lab.trace import Step
from topologies.two_nodes import topology

GUARD = NetworkPolicy(
    name="guard",
    pod_selector=Selector.of(app="server"),
    ingress=(NetworkRule((Peer(Selector.of(app="client")),)),),
)
HERE = {"place": "beta", "hook": "cil_from_overlay", "step": Step.TC_INGRESS}
NOBODY, HOST = 0xABCDE, 1


def tunnelled(lab: Lab, identity: int) -> bytes:
    """The client's datagram to the server, as alpha would send it for this identity."""
    client, server = lab.pod("client"), lab.pod("server")
    alpha, beta = client.node.facts, server.node.facts
    inner = frames.udp(
        (alpha.vxlan_mac, beta.vxlan_mac), (str(client.address), str(server.address)),
        (4000, 5000), with_cookie(b"hello", new_cookie()),
    )  # fmt: skip
    payload = frames.vxlan_payload(inner, identity)
    return frames.udp(
        (alpha.mac, beta.mac), (str(alpha.address), str(beta.address)), (50000, 8472), payload
    )


def arrives(lab: Lab, identity: int) -> bool:
    """Whether a socket in the server gets the client's datagram with this identity."""
    with lab.pod("server").serve_udp(5000), lab.trace() as seen:
        lab.node("alpha").inject(tunnelled(lab, identity))
    return any(trace.delivered for trace in seen.packets if trace.packet.destination_port == 5000)


@scenario(topology)
def unknown_identity(lab: Lab) -> None:
    """Two identities that are wrong and the right one, under a policy; a wrong one without."""
    lab.apply(GUARD)
    stranger = Ends(**HERE, reason="POLICY", why=f"identity {NOBODY}, which nobody here has")
    frame_lesson(lab, "alpha", tunnelled(lab, NOBODY), stranger)
    host = Ends(**HERE, reason="INVALID_IDENTITY", why="may not come from outside")
    frame_lesson(lab, "alpha", tunnelled(lab, HOST), host)
    mine = lab.pod("client").facts.identity
    lab.check("with the client's own identity it arrives", arrives(lab, mine))
    lab.delete(GUARD)
    lab.check("without a policy any identity but the host's arrives", arrives(lab, NOBODY))
