"""The same loss without a wire: an eBPF program at the receiver's ingress drops one segment."""

from lab import scenario
from lab.wire import Drop, Look, Medium, TwoHosts, data

hosts = TwoHosts(rules=(Drop(data(5)),), medium=Medium.VETH)


@scenario(hosts)
def ingress_drop(lab):
    """Ten segments over a veth pair; the fifth is dropped in the kernel."""
    client, server = lab.connect()
    for _ in range(10):
        # without delay an ACK could come back while the next segment is being sent
        client.send(1000)
        lab.wait_quiet(for_ms=10)
    server.receive(10_000)
    seen = lab.recording()
    again = [flight.sent.seq for flight in seen.retransmissions()]
    lab.check("the stream arrives intact", server.intact and server.received == 10_000)
    lab.effect("the fifth segment is dropped", [f.sent.seq for f in seen.lost()] == [4001])
    lab.effect("it is sent again, once", again == [4001])
    states = [state.name for state in seen.congestion_states()]
    lab.effect("Disorder, Recovery, Open", states == ["DISORDER", "RECOVERY", "OPEN"])
    lab.effect("the kernel counts a fast retransmit", seen.client["TCPFastRetrans"] == 1)
    lab.check("no timer fires", seen.client["TCPTimeouts"] == 0)
    lab.exactly("states", states)
    lab.picture(
        Look.SEQUENCE,
        "Dropped by eBPF at the receiver's ingress: three duplicate ACKs all the same",
        seen,
        from_ms=seen.at_ms(seen.data()[3].sent.time_ns),
        to_ms=seen.at_ms(seen.data()[8].sent.time_ns) + 5,
        note="4001-5000 reaches the server's device; a program there throws it away before TCP.",
    )
