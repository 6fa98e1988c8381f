"""TIME_WAIT answers a late FIN: the last ACK was lost, so the server asks again."""

from lab import scenario
from lab.wire import Drop, Look, TwoHosts, Way, ack

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def time_wait(lab):
    """The client closes first; its last ACK is lost."""
    client, server = lab.connect()
    port = client.raw.getsockname()[1]
    lab.deliver(client, server, 1000)
    server.set_quick_ack(False)
    lab.impair(Drop(ack(1, way=Way.TO_SERVER)))
    begin = len(lab.recording().flights)
    client.end()
    server.receive_until_end()
    server.close()
    client.receive_until_end()
    client.close()
    lab.wait_quiet(for_ms=600)
    seen = lab.recording()
    closing = seen.flags()[begin:]
    lab.effect(
        "the FIN comes again and is acknowledged again",
        closing == ("> FIN|ACK", "< FIN|ACK", "> ACK", "< FIN|ACK", "> ACK"),
        detail=str(closing),
    )
    states = [state.name for state in seen.tcp_states(at_client=False)]
    lab.check("so that the server can close", states[-2:] == ["LAST_ACK", "CLOSE"])
    lab.check("the client still keeps the pair of ports", lab.client.time_waits() == 1)
    lab.check("a new connection from the same port is refused", not lab.reuses(port))
    lab.exactly("closing", closing)
    lab.picture(
        Look.SEQUENCE,
        "TIME_WAIT: somebody is still there to answer the second FIN",
        seen,
        note="Were the client gone for good, nobody would answer, and the server would ask on.",
        from_ms=seen.at_ms(seen.flights[begin].sent.time_ns),
    )
