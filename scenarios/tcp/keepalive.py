"""Keepalive finds out that the other side has vanished without a word."""

from itertools import pairwise

from lab import scenario
from lab.wire import Drop, Kind, Look, SocketOptions, TwoHosts, Way, everything, is_timer

hosts = TwoHosts(delay_ms=5)


@scenario(hosts)
def keepalive(lab):
    """A probe after 1 second of silence; then nothing arrives any more."""
    client, server = lab.connect(client=SocketOptions(keepalive_s=(1, 1, 3)))
    lab.deliver(client, server, 1000)
    lab.wait_until(lambda: lab.client.counters()["TCPKeepAlive"] == 1, "a first probe")
    lab.wait_quiet()
    lab.impair(Drop(everything(Way.TO_SERVER)))
    lab.effect("then the client gives up", client.wait_readable(8.0))
    lab.effect("with ETIMEDOUT", client.error() == "ETIMEDOUT")
    lab.wait_quiet()
    seen = lab.recording()

    probes = [flight.sent for flight in seen.probes()]
    lab.check("the first probe is answered", seen.answer_ms(seen.probes()[0]) < 500)
    gaps = [(b.time_ns - a.time_ns) / 1e6 for a, b in pairwise(probes)]
    lab.effect("after three probes without an answer", len(probes) == 4)
    lab.effect(
        "1 second apart",
        len(gaps) == 3 and all(is_timer(gap, 1000) for gap in gaps[1:]),
        detail=str(gaps),
    )
    lab.check("a probe is empty and begins before the next byte", {p.seq for p in probes} == {1000})
    lab.effect("it resets the connection", bool(seen.of(Kind.RST, Way.TO_SERVER)))
    lab.check("the server knows nothing", server.info().state == 1)
    lab.effect("the kernel counts it", seen.client["TCPAbortOnTimeout"] == 1)
    lab.exactly("flags", seen.flags())
    lab.picture(
        Look.SEQUENCE,
        "Keepalive: one probe answered, three not, reset",
        seen,
        from_ms=16,
        note="Asked after 1 s of silence, then each second, three times; the application reads "
        "ETIMEDOUT.",
    )
