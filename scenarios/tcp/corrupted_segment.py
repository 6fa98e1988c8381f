"""A flipped bit makes the checksum fail, and the segment counts as lost."""

from lab import scenario
from lab.wire import Corrupt, Look, TwoHosts, data

hosts = TwoHosts(rules=(Corrupt(data(2)),), delay_ms=20)
TOTAL = 6000


@scenario(hosts)
def corrupted_segment(lab):
    """Six segments; one bit of the second is flipped on the wire."""
    client, server = lab.connect()
    lab.deliver(client, server, TOTAL)
    seen = lab.recording()
    again = [flight.sent.seq for flight in seen.retransmissions()]
    lab.check("the stream arrives intact", server.intact and server.received == TOTAL)
    lab.check("the wire lost nothing", not seen.lost())
    lab.effect("the server counts one bad checksum", seen.server["TcpInCsumErrors"] == 1)
    lab.effect("it answers as if the segment had not come", len(seen.duplicate_acks()) >= 3)
    lab.effect("the segment is sent again", again == [1001])
    lab.exactly("again", again)
    lab.picture(
        Look.SEQUENCE,
        "A flipped bit is as good as a loss",
        seen,
        from_ms=55,
        note="1001-2000 arrives, but its checksum is wrong: the server throws it away unread.",
    )
