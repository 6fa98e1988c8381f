"""A packet with somebody else's source address is dropped where it leaves the pod."""

from lab import Lab, scenario
from lab.packets import frames, new_cookie, with_cookie
from topologies.single_node import topology


@scenario(topology)
def spoofed_source_is_dropped(lab: Lab) -> None:
    """The same datagram from the client's own address and from a stranger's."""
    client, server = lab.pod("client"), lab.pod("server")
    macs = client.facts.mac, client.facts.lxc_mac
    for source, claim in ((client.address, "delivered"), ("10.0.1.200", "dropped")):
        payload = with_cookie(b"hello", new_cookie())
        frame = frames.udp(macs, (str(source), str(server.address)), (4000, 5000), payload)
        with server.serve_udp(5000) as receiver, lab.trace() as recording:
            client.inject(frame)
            # Frames of one veth keep their order: once this one is answered, the other is decided.
            client.send_udp(server, 5000)
            arrived = [port for _, port in receiver.report()["peers"]].count(4000)
        lab.check(f"from {source} it is {claim}", arrived == (claim == "delivered"))
        # The server's answer to port 4000 finds no socket: that drop is the kernel's.
        drops = [(h.program, h.drop_reason, h.device) for h in recording.drops if h.program]
        expected = [("cil_from_container", "INVALID_SIP", client.facts.lxc)]
        lab.check(
            f"from {source} the datapath's drops are as expected",
            drops == (expected if claim == "dropped" else []),
            detail=str(drops),
        )
