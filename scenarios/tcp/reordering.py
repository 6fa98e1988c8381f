"""A segment overtaken by two others is not taken for lost."""

from lab import scenario
from lab.wire import Look, Reorder, TwoHosts, data

hosts = TwoHosts(rules=(Reorder(data(3), behind=2),), delay_ms=20)
TOTAL = 6000


@scenario(hosts)
def reordering(lab):
    """Six segments; the third arrives after the fifth."""
    client, server = lab.connect()
    lab.deliver(client, server, TOTAL)
    seen = lab.recording()
    arrivals = sorted((at, f.sent.seq) for f in seen.data() for at in f.arrived_ns)
    order = [seq for _, seq in arrivals]
    lab.check("the stream arrives intact", server.intact and server.received == TOTAL)
    lab.effect(
        "2001 arrives after 3001 and 4001",
        order[:5] == [1, 1001, 3001, 4001, 2001],
        detail=str(order),
    )
    repeats = [flight.sent.ack for flight in seen.duplicate_acks()]
    lab.effect("two duplicate ACKs ask for 2001", repeats == [2001, 2001])
    lab.check("two are not enough: nothing is sent again", not seen.retransmissions())
    states = [state.name for state in seen.congestion_states()]
    lab.effect("TCP passes through Disorder only", states == ["DISORDER", "OPEN"])
    lab.exactly("arrivals", order)
    lab.picture(
        Look.SEQUENCE,
        "Overtaken by two: two duplicate ACKs, no retransmission",
        seen,
        from_ms=55,
        note="Only a third duplicate would mean: lost. Late is not lost.",
    )
