"""A segment overtaken by four is sent again for nothing, and the receiver says so."""

from lab import scenario
from lab.wire import Look, Reorder, TwoHosts, data

hosts = TwoHosts(
    rules=(Reorder(data(3), behind=4),),
    delay_ms=20,
    sysctls=(("ipv4.tcp_sack", "1"), ("ipv4.tcp_dsack", "1")),
)


TOTAL = 7000


@scenario(hosts)
def spurious_retransmission(lab):
    """Seven segments; the third arrives after the seventh."""
    client, server = lab.connect()
    lab.deliver(client, server, TOTAL)
    seen = lab.recording()
    again = [flight.sent.seq for flight in seen.retransmissions()]
    lab.check("the stream arrives intact", server.intact and server.received == TOTAL)
    lab.check("the wire lost nothing", not seen.lost())
    lab.effect("2001 is sent again all the same", again == [2001])
    lab.effect("the receiver reports the duplicate (DSACK)", seen.server["TCPDSACKOldSent"] == 1)
    lab.effect("the sender learns it", seen.client["TCPDSACKRecv"] == 1)
    lab.check("and undoes the smaller window", client.info().cwnd >= 10)
    lab.exactly("again", again)
    lab.picture(
        Look.SEQUENCE,
        "Overtaken by four: sent again for nothing",
        seen,
        from_ms=55,
        note="The last ACK reports a duplicate (dsack): the sender takes its smaller window back.",
    )
