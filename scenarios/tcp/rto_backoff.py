"""With nobody answering, the retransmission timer doubles each time."""

from itertools import pairwise

from lab import scenario
from lab.wire import CongestionState, Drop, Look, TwoHosts, data, is_timer

hosts = TwoHosts(rules=(Drop(data(1, 2, 3, 4)),), delay_ms=2)


@scenario(hosts)
def rto_backoff(lab):
    """The only segment is lost four times; the fifth attempt arrives."""
    client, server = lab.connect()
    client.send(1000)
    server.wait_readable(0.5)
    waiting = client.info()
    server.receive(1000)
    lab.wait_quiet()
    info, seen = client.info(), lab.recording()
    times = [seen.at_ms(flight.sent.time_ns) for flight in seen.data()]
    gaps = [after - before for before, after in pairwise(times)]
    lab.check("the stream arrives intact", server.intact and server.received == 1000)
    lab.effect("the segment is sent five times", len(times) == 5)
    lab.effect("the first timeout is 200 ms", gaps and is_timer(gaps[0], 200))
    lab.effect(
        "each later one is twice the last",
        len(gaps) == 4 and all(is_timer(gap, 200 << n) for n, gap in enumerate(gaps)),
        detail=str([round(gap) for gap in gaps]),
    )
    lab.effect("the kernel counts four timeouts", seen.client["TCPTimeouts"] == 4)
    windows = {flight.sent.state.cwnd for flight in seen.retransmissions()}
    lab.effect("each time the window is 1 segment", windows == {1})
    lab.effect("slow start will end at half of the old window", info.ssthresh == 5)
    lab.effect("TCP is in state Loss until the answer", waiting.ca_state == CongestionState.LOSS)
    lab.exactly("attempts", len(times))
    lab.picture(
        Look.SEQUENCE,
        "Nobody answers: 0.2, 0.4, 0.8, 1.6 seconds until the next attempt",
        seen,
        seed="after a timeout the window falls back to its initial value",
        linux="it falls to 1 segment, below the initial 10; ssthresh is half of the window",
    )
