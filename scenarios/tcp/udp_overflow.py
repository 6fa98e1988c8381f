"""UDP has no flow control: what finds the receive queue full is thrown away, unseen."""

from lab import scenario
from lab.wire import Kind, Look, TwoHosts, Way

hosts = TwoHosts(delay_ms=1)
SENT = 12


@scenario(hosts)
def udp_overflow(lab):
    """Twelve datagrams of 500 bytes into a buffer for a few, while the application sleeps."""
    client, server = lab.datagram_sockets(room_bytes=4096)
    for number in range(SENT):
        client.send(number.to_bytes(2, "big") + bytes(498))
    lab.wait_quiet()
    server.setblocking(False)
    kept = []
    while lab.readable(server):
        kept.append(int.from_bytes(server.recv(2000)[:2], "big"))
    seen = lab.recording()
    arrived = [flight for flight in seen.of(Kind.DATAGRAM, Way.TO_SERVER) if not flight.lost]
    lab.check("every datagram reached the server's device", len(arrived) == SENT)
    lab.check("the application gets the first few", kept == list(range(len(kept))))
    lab.check("and only those", 0 < len(kept) < SENT, detail=str(len(kept)))
    full = seen.server["UdpRcvbufErrors"]
    lab.check("the kernel counts the others", full == SENT - len(kept), detail=str(full))
    lab.check("nobody tells the sender", seen.client["IcmpInMsgs"] == 0)
    lab.exactly("kept", len(kept))
    lab.picture(
        Look.SEQUENCE,
        "UDP: what finds the receive queue full is thrown away",
        seen,
        note="The wire delivers all of them, nothing comes back, and the sender never learns.",
        labels=tuple("read" if number in kept else "thrown away" for number in range(SENT)),
    )
