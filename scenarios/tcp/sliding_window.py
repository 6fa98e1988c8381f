"""The sender may have three segments in flight; each acknowledgement slides the window on."""

from lab import scenario
from lab.wire import Look, TwoHosts, Way

WINDOW = 3000
hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def sliding_window(lab):
    """The receiver's window holds three segments of 1000 bytes."""
    client, server = lab.connect_with_window(WINDOW)
    lab.deliver(client, server, 7000)
    seen = lab.recording()

    later = [flight for flight in seen.data() if flight.sent.seq > 2000]
    first = [flight.sent.seq for flight in later[:3]]
    lab.check("the stream arrives intact", server.intact and server.received == 9000)
    lab.check("2001 to 5000 leave without waiting for an answer", first == [2001, 3001, 4001])
    lab.check("never more than 3000 bytes are unacknowledged", seen.most_in_flight() == WINDOW)
    answers = [flight for flight in seen.acks(Way.TO_CLIENT) if flight.sent.ack > 2001]
    lab.check("the first answer asks for 4001: two segments at once", answers[0].sent.ack == 4001)
    opened, next_one = (answer.arrived_ns[0] for answer in answers[:2])
    freed = [f.sent.seq for f in later if opened < f.sent.time_ns < next_one]
    lab.check("the window slides by two: 5001 and 6001 leave", freed == [5001, 6001])
    lab.check("nothing is sent twice", not seen.retransmissions())
    lab.exactly("order", [flight.sent.seq for flight in later])
    lab.picture(
        Look.SEQUENCE,
        "A window of 3: ACK 4001 frees room for two more segments",
        seen,
        from_ms=seen.at_ms(later[0].sent.time_ns),
    )
    lab.picture(
        Look.TIME_SEQUENCE,
        "The sender stays below the window's edge",
        seen,
        note="Between the two stairs lie the 3000 bytes that may be on their way.",
    )
