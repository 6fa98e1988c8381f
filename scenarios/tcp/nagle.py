"""Nagle's algorithm keeps at most one small segment on its way; what follows is gathered."""

from lab import scenario
from lab.wire import Look, TwoHosts

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def nagle(lab):
    """Rules 1, 2, 4: five small writes, then a full segment, then the end of the stream."""
    client, server = lab.connect()
    for _ in range(5):
        client.send(10)
    lab.wait_quiet()
    server.receive(50)
    client.send(10)
    client.send(1000)
    lab.wait_quiet()
    server.receive(1010)
    client.send(10)
    client.send(10)
    client.end()
    server.receive_until_end()
    lab.wait_quiet()
    seen = lab.recording()

    sent = [(flight.sent.seq, flight.sent.length) for flight in seen.data()]
    five, full, end = sent[:2], sent[2:4], sent[4:]
    lab.check("the stream arrives intact", server.intact and server.received == 1080)
    lab.check("five writes of 10 bytes become segments of 10 and 40", five == [(1, 10), (11, 40)])
    waited_ms = (seen.data()[1].sent.time_ns - seen.data()[0].sent.time_ns) / 1e6
    lab.check("the 40 wait for the acknowledgement of the 10", 40 <= waited_ms < 80)
    lab.check("a full segment does not wait for the small one", full == [(51, 10), (61, 1000)])
    lab.check("the end of the stream takes what is left along", end == [(1061, 10), (1071, 10)])
    lab.exactly("segments", sent)
    lab.picture(
        Look.SEQUENCE,
        "Nagle: one small segment at a time",
        seen,
        from_ms=seen.at_ms(seen.data()[0].sent.time_ns),
        note="Writes: 5 x 10 | 10, 1000 | 10, 10, end. A full segment and a FIN do not wait.",
    )
