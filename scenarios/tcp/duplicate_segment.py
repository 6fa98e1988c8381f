"""A segment that arrives twice is delivered once and acknowledged twice."""

from lab import scenario
from lab.wire import Duplicate, Look, TwoHosts, data

hosts = TwoHosts(rules=(Duplicate(data(2)),), delay_ms=20)


@scenario(hosts)
def duplicate_segment(lab):
    """Three segments; the wire delivers the second twice."""
    client, server = lab.connect()
    lab.deliver(client, server, 3000)
    seen = lab.recording()
    copies = [len(flight.arrived_ns) for flight in seen.data()]
    lab.check("the stream arrives intact", server.intact and server.received == 3000)
    lab.effect("the second segment arrives twice", copies == [1, 2, 1])
    answers = [flight.sent.ack for flight in seen.acks()]
    lab.effect("both copies are acknowledged alike", answers == [1001, 2001, 2001, 3001])
    lab.check("nothing is sent again", not seen.retransmissions())
    lab.exactly("answers", answers)
    lab.picture(
        Look.SEQUENCE,
        "A duplicate is acknowledged and thrown away",
        seen,
        from_ms=55,
        note="Two arrows with the same bytes arrive, and two ACKs with the same number answer.",
    )
