"""While the window stays closed, probes ask again and again, each time after twice the wait."""

from itertools import pairwise

from lab import scenario
from lab.wire import Look, SocketOptions, TwoHosts, Way, is_timer

hosts = TwoHosts(delay_ms=1)


@scenario(hosts)
def persist_timer(lab):
    """The application reads nothing until three probes have been sent."""
    client, server = lab.connect(server=SocketOptions(receive_buffer_bytes=2304))
    client.send(8000)
    lab.wait_until(lambda: client.info().snd_wnd == 0, "a closed window")
    lab.wait_until(lambda: lab.client.counters()["TCPWinProbe"] == 3, "three window probes")
    info = client.info()
    for _ in range(4):
        server.receive(2000)
        lab.wait_quiet(for_ms=80)
    lab.wait_quiet()
    seen = lab.recording()
    probes = seen.probes()
    gaps = [(b.sent.time_ns - a.sent.time_ns) / 1e6 for a, b in pairwise(probes)]
    lab.check("the stream arrives intact", server.intact and server.received == 8000)
    lab.check("three probes are sent", len(probes) == 3)
    lab.check(
        "the waits double",
        all(is_timer(gap, 400 << n) for n, gap in enumerate(gaps)),
        detail=str(gaps),
    )
    lab.check("the kernel counts three window probes", seen.client["TCPWinProbe"] == 3)
    lab.check("nothing counts as lost", seen.client["TcpRetransSegs"] == 0)
    lab.check("the sender knows that it is the window", info.rwnd_limited_us > 0.9 * info.busy_us)
    lab.exactly("sent", seen.ladder(Way.TO_SERVER))
    lab.picture(
        Look.SEQUENCE,
        "A closed window is probed after 0.2, 0.4 and 0.8 seconds more",
        seen,
        note="The last ACK, window 2000, is not an answer: the application has read at last.",
        from_ms=seen.at_ms(seen.data()[0].sent.time_ns),
        to_ms=seen.at_ms(seen.data()[3].sent.time_ns),
    )
