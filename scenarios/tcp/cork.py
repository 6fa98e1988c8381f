"""A corked socket sends full segments only, until it is uncorked or 200 ms have passed."""

import socket

from lab import scenario
from lab.wire import Look, TwoHosts, is_timer

hosts = TwoHosts(delay_ms=5)


@scenario(hosts)
def cork(lab):
    """Rule 5: 300 bytes uncorked by hand, then 300 bytes forgotten under the cork."""
    client, server = lab.connect()
    client.set_option(socket.TCP_CORK, 1)
    for _ in range(3):
        client.send(100)
    lab.check("nothing comes while the cork is in", not server.wait_readable(0.05))
    client.set_option(socket.TCP_CORK, 0)
    server.receive(300)
    lab.wait_quiet()
    client.set_option(socket.TCP_CORK, 1)
    begun_ns = lab.now_ns()
    client.send(300)
    server.receive(300)
    client.set_option(socket.TCP_CORK, 0)
    lab.wait_quiet()
    client.set_option(socket.TCP_CORK, 1)
    client.send(1300)
    lab.check("a full segment is not held back", len(server.receive(1000)) == 1000)
    client.set_option(socket.TCP_CORK, 0)
    server.receive(300)
    lab.wait_quiet()
    seen = lab.recording()
    sent = [(flight.sent.seq, flight.sent.length) for flight in seen.data()]
    lab.check("the stream arrives intact", server.intact and server.received == 1900)
    lab.check("three writes leave as one segment of 300", sent[0] == (1, 300))
    forgotten = seen.data()[1].sent
    held_ms = (forgotten.time_ns - begun_ns) / 1e6
    lab.check(
        "a forgotten cork gives way after 200 ms",
        is_timer(held_ms, 200),
        detail=f"{held_ms:.0f} ms",
    )
    lab.check("then a full segment, and its rest", sent[2:] == [(601, 1000), (1601, 300)])
    lab.exactly("segments", sent)
    lab.picture(
        Look.SEQUENCE,
        "TCP_CORK: small writes are gathered for 200 ms",
        seen,
        from_ms=15,
        note="1-300: three writes of 100, uncorked by hand. 301-600: forgotten under the cork. "
        "Then a full segment, and its rest.",
    )
