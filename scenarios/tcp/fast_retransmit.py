"""One lost segment: three duplicate ACKs bring it again, and the rest is delivered at once."""

from itertools import pairwise

from lab import scenario
from lab.wire import Drop, Look, TwoHosts, Way, data

hosts = TwoHosts(rules=(Drop(data(1, first_byte=1001)),), delay_ms=40, initial_window=3)


@scenario(hosts)
def fast_retransmit(lab):
    """Window of 3 segments of 1000 bytes; bytes 1001 to 2000 are lost the first time."""
    client, server = lab.connect()
    client.send(6000)
    lab.wait_ms(60)
    server.receive(1000)
    lab.effect("bytes 1001 to 2000 keep the application waiting", not server.wait_readable(0.06))
    at_once = server.receive_once()
    lab.effect("then all five segments are delivered in one read", len(at_once) == 5000)
    lab.wait_quiet()
    lab.deliver(client, server, 3000)
    seen = lab.recording()

    again, repeats = seen.retransmissions(), seen.duplicate_acks()
    lab.check("the stream arrives intact", server.intact and server.received == 9000)
    lab.effect("one segment is lost", [flight.sent.seq for flight in seen.lost()] == [1001])
    lab.effect("four ACKs ask for byte 1001 again", [r.sent.ack for r in repeats] == [1001] * 4)
    lab.effect("only the lost segment is sent again", [r.sent.seq for r in again] == [1001])
    third = repeats[2].arrived_ns[0] if len(repeats) > 2 else seen.start_ns
    fourth = repeats[3].arrived_ns[0] if len(repeats) > 3 else seen.start_ns
    lab.effect(
        "it leaves on the third duplicate, before the fourth is there",
        again and third < again[0].sent.time_ns < fourth,
    )
    jumps = [flight.sent.ack for flight in seen.acks(Way.TO_CLIENT)]
    lab.effect("the next ACK jumps from 1001 to 6001", (1001, 6001) in pairwise(jumps))
    lab.effect("the kernel counts a fast retransmit", seen.client["TCPFastRetrans"] == 1)
    lab.check("and no timeout", seen.client["TCPTimeouts"] == 0)
    lab.exactly("order", [(flight.sent.seq, flight.fate.value) for flight in seen.data()])
    lab.picture(
        Look.SEQUENCE,
        "A lost segment is sent again after three duplicate ACKs",
        seen,
        from_ms=seen.at_ms(seen.data()[0].sent.time_ns),
        seed="with a window of 3, bytes 3001-6000 follow at once and the new window is 3 again",
        linux="duplicates 1 and 2 each release one new segment; the window halves to 2",
    )
