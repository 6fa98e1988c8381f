"""Three segments open a connection: each side's number is acknowledged before data flows."""

from lab import scenario
from lab.wire import Flag, Look, TwoHosts

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def handshake(lab):
    """The client connects and sends 1000 bytes."""
    client, server = lab.connect()
    lab.deliver(client, server, 1000)
    seen = lab.recording()
    first, second, third = (flight.sent for flight in seen.flights[:3])
    flags = seen.flags()[:4]
    lab.check("SYN, SYN-ACK, ACK, then data", flags == ("> SYN", "< SYN|ACK", "> ACK", "> ACK"))
    lab.check("the SYN takes number 0 of the stream", (first.seq, first.length) == (0, 0))
    lab.check("the answer expects byte 1", second.ack == 1 and bool(second.flags & Flag.SYN))
    lab.check("and so does the client of the server's stream", third.ack == 1)
    waited_ms = seen.at_ms(third.time_ns)
    lab.check("the client is ready after one round trip", 40 <= waited_ms < 80)
    lab.check(
        "client: SYN_SENT, ESTABLISHED",
        [state.name for state in seen.tcp_states()] == ["SYN_SENT", "ESTABLISHED"],
    )
    states = [state.name for state in seen.tcp_states(at_client=False)]
    lab.check(
        "server: LISTEN, SYN_RECV, ESTABLISHED", states[:3] == ["LISTEN", "SYN_RECV", "ESTABLISHED"]
    )
    lab.exactly("flags", flags)
    lab.picture(
        Look.SEQUENCE,
        "The three-way handshake",
        seen,
        note="SYN takes number 0 in each direction; each side acknowledges the other's.",
    )
