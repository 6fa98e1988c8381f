"""The window closes, the news of its opening is lost, and a probe asks for it."""

from lab import scenario
from lab.wire import Drop, Look, TwoHosts, window_update

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def zero_window(lab):
    """4001 to 6000 fill the buffer; the window update after the read is lost."""
    client, server = lab.connect_with_window(2000, receive_buffer_bytes=2304, quiet_ms=80)
    lab.deliver(client, server, 2000, quiet_ms=80)
    lab.wait_quiet(for_ms=80)
    server.set_quick_ack(False)
    client.send(4000)
    lab.wait_until(lambda: client.info().snd_wnd == 0, "a closed window")
    lab.impair(Drop(window_update(1)))
    server.receive(2000)
    lab.effect("the update is lost: nothing more comes", not server.wait_readable(0.1))
    lab.wait_until(lambda: server.wait_readable(0), "what the probe releases")
    lab.wait_quiet(for_ms=80)
    server.receive(2000)
    lab.wait_quiet(for_ms=80)
    seen = lab.recording()

    lab.check("the stream arrives intact", server.intact and server.received == 8000)
    closed = [f for f in seen.acks() if f.sent.window == 0]
    lab.check("ACK 6001 closes the window", 6001 in [f.sent.ack for f in closed])
    lost = [(f.sent.ack, f.sent.window) for f in seen.lost()]
    lab.effect("the update 6001, window 2000 is lost", lost == [(6001, 2000)])
    probes = seen.probes()
    lab.effect("one probe asks", len(probes) == 1)
    lab.effect(
        "its 0 bytes begin at 6000", [(p.sent.seq, p.sent.length) for p in probes] == [(6000, 0)]
    )
    after = [f.sent.seq for f in seen.data() if probes and f.sent.time_ns > probes[0].sent.time_ns]
    lab.effect("its answer releases 6001 and 7001", after == [6001, 7001])
    lab.exactly("order", [(f.sent.seq, f.lost) for f in seen.data()])
    lab.exactly("lost", lost)
    lab.picture(
        Look.SEQUENCE,
        "Window 0, a lost window update, and the probe that asks for it",
        seen,
        from_ms=seen.at_ms(next(f.sent.time_ns for f in seen.data() if f.sent.seq == 4001)),
        seed="the probe carries 1 byte, number 6001",
        linux="the probe carries nothing; its number is the last byte acknowledged, 6000",
    )
