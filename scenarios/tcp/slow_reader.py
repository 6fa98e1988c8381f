"""A slow reader slows the sender down without losing a byte."""

from lab import scenario
from lab.wire import Look, SocketOptions, TwoHosts, Way

hosts = TwoHosts(delay_ms=1)
TOTAL = 60_000


@scenario(hosts)
def slow_reader(lab):
    """The application takes 4 KiB out of a 16 KiB buffer whenever nothing has moved for 60 ms."""
    client, server = lab.connect(
        client=SocketOptions(send_buffer_bytes=200_000),
        server=SocketOptions(receive_buffer_bytes=16_384),
    )
    client.send(TOTAL)
    while server.received < TOTAL:
        lab.wait_quiet(for_ms=60)
        server.receive_once(4096)
    client.wait_acknowledged()
    lab.wait_quiet()
    info, seen = client.info(), lab.recording()
    windows = [flight.sent.window for flight in seen.acks(Way.TO_CLIENT)]
    share = info.rwnd_limited_us / max(info.busy_us, 1)
    lab.check("the stream arrives intact", server.intact and server.received == TOTAL)
    lab.check("nothing is lost or sent twice", not seen.lost() and not seen.retransmissions())
    lab.check("the window closes again and again", windows.count(0) >= 2, detail=str(windows))
    lab.check("the sender waits for the window most of the time", share > 0.6, detail=f"{share}")
    lab.check("the congestion window is not what holds it", info.cwnd >= 10)
    lab.exactly("lost", len(seen.lost()))
    lab.picture(
        Look.TIME_SEQUENCE,
        "A slow reader: the window's edge sets the pace",
        seen,
        note="Where the stairs meet, nothing may be sent: the buffer is full until somebody reads.",
    )
