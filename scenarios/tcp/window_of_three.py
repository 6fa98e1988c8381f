"""Of a window of three segments the third is lost: too few are left to complain three times."""

from itertools import pairwise

from lab import scenario
from lab.wire import Drop, Look, TwoHosts, Way, data, is_timer

WINDOW = 3000
hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def window_of_three(lab):
    """MSS 1000, a window of 3000 bytes, and 2001 to 3000 is lost the first time."""
    client, server = lab.connect_with_window(WINDOW)
    lab.impair(Drop(data(3)))
    lab.deliver(client, server, 6000, quiet_ms=500)
    seen = lab.recording()

    drawn = [flight for flight in seen.data() if flight.sent.seq > 2000]
    repeats, again = seen.duplicate_acks(), seen.retransmissions()
    lab.check("the stream arrives intact", server.intact and server.received == 8000)
    lab.check("never more than 3000 bytes are unacknowledged", seen.most_in_flight() <= WINDOW)
    lab.effect("the third segment is lost", [f.sent.seq for f in seen.lost()] == [4001])
    lab.effect("two segments follow it, and no third", [f.sent.ack for f in repeats] == [4001] * 2)
    lab.check("so nothing is sent again early", seen.client["TCPFastRetrans"] == 0)
    wait_ms = (again[0].sent.time_ns - seen.lost()[0].sent.time_ns) / 1e6 if again else 0.0
    lab.effect("the timer has to do it", seen.client["TCPTimeouts"] == 1, detail=f"{wait_ms:.0f}")
    lab.effect("after 240 ms: the round trip and 200 ms", is_timer(wait_ms, 240))
    jumps = [flight.sent.ack for flight in seen.acks(Way.TO_CLIENT)]
    lab.effect("the next ACK jumps over what was kept", (4001, 7001) in pairwise(jumps))
    lab.picture(
        Look.SEQUENCE,
        "A window of 3, and 2001\u20133000 is lost: two duplicate ACKs are not three",
        seen,
        from_ms=seen.at_ms(drawn[0].sent.time_ns),
        skip_bytes=2000,
        seed="the sender goes on after three, so three duplicate ACKs bring the segment again",
        linux="the window lets only two more go; nobody complains a third time, the timer does it",
    )
