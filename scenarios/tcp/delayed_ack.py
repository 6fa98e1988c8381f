"""A receiver waits with its acknowledgement: 40 ms at most, or until a second full segment."""

from lab import scenario
from lab.wire import Look, SocketOptions, TwoHosts, is_timer

hosts = TwoHosts(delay_ms=5)
# Nobody reads the pair before it is acknowledged; TCP waits with that if it would have to offer
# less than before. With room to spare it need not, on any kernel.
ROOM = SocketOptions(receive_buffer_bytes=200_000)


@scenario(hosts)
def delayed_ack(lab):
    """One small segment alone, then two full segments together."""
    client, server = lab.connect(server=ROOM)
    lab.deliver(client, server, 2000)
    for count in (100, 2000):
        server.set_quick_ack(False)
        lab.deliver(client, server, count, quiet_ms=80)
    seen = lab.recording()

    alone = [f for f in seen.data() if f.sent.length == 100]
    pair = [f for f in seen.data() if f.sent.seq > 2100]
    wait_ms = seen.answer_ms(alone[0])
    lab.check("the stream arrives intact", server.intact and server.received == 4100)
    lab.check(
        "a lone segment is acknowledged after 40 ms, long before 200",
        is_timer(wait_ms, 40, below_ms=100),
        detail=f"{wait_ms:.1f} ms",
    )
    lab.check("the kernel counts a delayed ACK", seen.server["DelayedACKs"] == 1)
    answers = [f.sent.ack for f in seen.acks() if f.sent.ack > 2101]
    lab.check("two full segments get one ACK between them", answers == [4101])
    lab.check("at once", seen.answer_ms(pair[1]) < 20, detail=f"{seen.answer_ms(pair[1]):.2f} ms")
    lab.exactly("order", [(f.sent.seq, f.sent.ack) for f in seen.flights])
    lab.picture(
        Look.SEQUENCE,
        "One segment waits 40 ms for its ACK, two get it at once",
        seen,
        from_ms=seen.at_ms(alone[0].sent.time_ns) - 1,
        seed="at most 200 ms",
        linux="at most 40 ms here (the minimum; it adapts to the rhythm of the data)",
    )
