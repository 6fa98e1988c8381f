"""A lost acknowledgement costs nothing: the next one says the same and more."""

from lab import scenario
from lab.wire import Drop, Look, TwoHosts, Way, ack

hosts = TwoHosts(rules=(Drop(ack(2, 4, 5)),), delay_ms=20, initial_window=3)


@scenario(hosts)
def lost_ack(lab):
    """Two rounds of three segments; the ACKs 2001, 4001 and 5001 are lost, 3001 and 6001 not."""
    client, server = lab.connect()
    for _ in range(2):
        lab.deliver(client, server, 3000)
    seen = lab.recording()
    lost = [flight.sent.ack for flight in seen.lost()]
    arrived = [flight.sent.ack for flight in seen.acks(Way.TO_CLIENT) if not flight.lost]
    lab.check("the stream arrives intact", server.intact and server.received == 6000)
    lab.effect("the ACKs 2001, 4001 and 5001 are lost", lost == [2001, 4001, 5001])
    lab.effect("only 1001, 3001 and 6001 come back", arrived == [1001, 3001, 6001])
    lab.check("nothing is sent twice", not seen.retransmissions())
    lab.check("no timer fires", seen.client["TCPTimeouts"] == 0)
    lab.check("everything is acknowledged", client.info().unacked == 0)
    lab.exactly("order", [(f.sent.seq, f.sent.ack, f.lost) for f in seen.flights])
    lab.picture(
        Look.SEQUENCE,
        "Lost ACKs: ACK 3001 also covers the lost ACK 2001",
        seen,
        from_ms=seen.at_ms(seen.data()[0].sent.time_ns),
        note="Nothing is sent twice: an ACK says that everything before its number has come.",
    )
