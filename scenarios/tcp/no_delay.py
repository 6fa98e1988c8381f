"""With TCP_NODELAY every write leaves at once, however small."""

from lab import scenario
from lab.wire import Look, SocketOptions, TwoHosts

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def no_delay(lab):
    """Rule 3: five writes of 10 bytes."""
    client, server = lab.connect(client=SocketOptions(no_delay=True))
    for _ in range(5):
        client.send(10)
    lab.wait_quiet()
    server.receive(50)
    seen = lab.recording()
    sent = [(flight.sent.seq, flight.sent.length) for flight in seen.data()]
    first = seen.acks()[0]
    times = [seen.at_ms(flight.sent.time_ns) for flight in seen.data()]
    lab.check("the stream arrives intact", server.intact and server.received == 50)
    lab.check("five writes are five segments", [length for _, length in sent] == [10] * 5)
    lab.check("none waits for an acknowledgement", times[-1] < seen.at_ms(first.arrived_ns[0]))
    headers = sum(flight.sent.frame_bytes - flight.sent.length for flight in seen.data())
    lab.check("headers weigh five times the data", headers == 5 * 54)
    lab.exactly("segments", sent)
    lab.picture(
        Look.SEQUENCE,
        "TCP_NODELAY: five writes, five segments",
        seen,
        from_ms=seen.at_ms(seen.data()[0].sent.time_ns),
        note="None waits for an ACK. Each carries 54 bytes of headers for 10 bytes of data.",
    )
