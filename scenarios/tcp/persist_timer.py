"""While the window stays closed, probes ask again and again, each time after twice the wait."""

from itertools import pairwise

from lab import scenario
from lab.wire import COARSE_MS, Look, SocketOptions, TwoHosts

hosts = TwoHosts(delay_ms=1)


@scenario(hosts)
def persist_timer(lab):
    """The application reads nothing until three probes have been sent."""
    client, server = lab.connect(server=SocketOptions(receive_buffer_bytes=2304))
    client.send(8000)
    lab.wait_until(lambda: client.info().snd_wnd == 0, "a closed window")
    lab.wait_until(lambda: lab.client.counters()["TCPWinProbe"] == 3, "three window probes")
    info = client.info()
    server.receive(8000)
    lab.wait_quiet()
    seen = lab.recording()
    probes = seen.probes()
    gaps = [(b.sent.time_ns - a.sent.time_ns) / 1e6 for a, b in pairwise(probes)]
    lab.check("the stream arrives intact", server.intact and server.received == 8000)
    lab.check("three probes are sent", len(probes) == 3)
    lab.check(
        "the waits double",
        all(400 << n <= gap <= (440 << n) + COARSE_MS for n, gap in enumerate(gaps)),
        detail=str(gaps),
    )
    lab.check("the kernel counts three window probes", seen.client["TCPWinProbe"] == 3)
    lab.check("nothing counts as lost", seen.client["TcpRetransSegs"] == 0)
    lab.check("the sender knows that it is the window", info.rwnd_limited_us > 0.9 * info.busy_us)
    lab.exactly("probes", [(p.sent.seq, p.sent.length) for p in probes])
    lab.picture(
        Look.SEQUENCE,
        "A closed window is probed after 0.2, 0.4 and 0.8 seconds more",
        seen,
        to_ms=seen.at_ms(probes[-1].sent.time_ns) + 60,
    )
