"""Slow start doubles the congestion window every round trip."""

from lab import scenario
from lab.wire import Look, TwoHosts

hosts = TwoHosts(
    delay_ms=25,
    initial_window=1,
    quick_ack=True,
    sysctls=(("ipv4.tcp_rmem", "4096 1048576 6291456"),),
)


@scenario(hosts)
def slow_start(lab):
    """Begin with one segment, as in the drawing, on a perfect wire of 50 ms round trip."""
    client, server = lab.connect()
    lab.deliver(client, server, 60_000)
    seen = lab.recording()
    rounds = seen.rounds()
    lab.check("the stream arrives intact", server.intact and server.received == 60_000)
    lab.check("rounds carry 1, 2, 4, 8, 16 segments, then the rest", rounds == (1, 2, 4, 8, 16, 29))
    lab.check("nothing is sent twice", not seen.retransmissions())
    lab.exactly("rounds", rounds)
    lab.picture(
        Look.WINDOW,
        "Slow start: each round trip doubles the window",
        seen,
        seed="the window begins at 1 segment",
        linux="begins at 10 (RFC 6928); here the route says initcwnd 1",
    )
    lab.picture(
        Look.TIME_SEQUENCE,
        "Slow start: 1, 2, 4, 8, 16 segments per round trip",
        seen,
        note="Each ACK lets two segments go: one for the one that has arrived, one more.",
    )
