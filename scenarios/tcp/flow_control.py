"""The receiver says how much may come: three segments first, two from then on."""

from lab import scenario
from lab.wire import Look, TwoHosts

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def flow_control(lab):
    """The window is 3000 bytes for the first answer and 2000 bytes after it."""
    client, server = lab.connect_with_window(3000)
    server.limit_window(2000)
    server.set_quick_ack(False)
    lab.deliver(client, server, 7000)
    seen = lab.recording()

    drawn = [flight for flight in seen.data() if flight.sent.seq > 2000]
    begin = drawn[0].sent.time_ns
    offer = [flight for flight in seen.acks() if flight.sent.time_ns < begin][-1]
    windows = [(f.sent.ack, f.sent.window) for f in seen.acks() if f.sent.time_ns > begin]
    lab.check("the stream arrives intact", server.intact and server.received == 9000)
    rounds = seen.rounds(from_byte=2001)
    lab.check("three segments leave at once, then at most two", rounds == (3, 2, 2))
    lab.check("every answer offers 2000 bytes", {window for _, window in windows} == {2000})
    lab.check("the third segment was not lost", not seen.lost() and not seen.retransmissions())
    lab.exactly("order", [flight.sent.seq for flight in drawn])
    lab.picture(
        Look.SEQUENCE,
        "The receiver's window falls from 3000 to 2000 bytes",
        seen,
        from_ms=seen.at_ms(offer.sent.time_ns),
        skip_bytes=2000,
        seed="2001-3000 is not processed and has to be sent again",
        linux="what the window allowed is kept: 2001-3000 is acknowledged, nothing is sent twice",
    )
