"""If the server closes at once too, its ACK and its FIN travel together."""

from lab import scenario
from lab.wire import Look, TwoHosts

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def close_in_three(lab):
    """The server closes as soon as it reads the end of the client's stream."""
    client, server = lab.connect()
    # before its first data a host does not delay an ACK by 40 ms, but to the next tick
    lab.deliver(client, server, 1000)
    server.set_quick_ack(False)
    begin = len(lab.recording().flights)
    client.end()
    server.receive_until_end()
    server.end()
    client.receive_until_end()
    lab.wait_quiet(for_ms=120)
    seen = lab.recording()
    closing = seen.flags()[begin:]
    lab.check("FIN, FIN with ACK, ACK", closing == ("> FIN|ACK", "< FIN|ACK", "> ACK"))
    both = seen.flights[begin + 1].sent
    lab.check("the server's FIN acknowledges the client's", both.ack == 1002)
    states = [state.name for state in seen.tcp_states(at_client=False)]
    lab.check(
        "the server passes through CLOSE_WAIT all the same",
        states[-3:] == ["CLOSE_WAIT", "LAST_ACK", "CLOSE"],
    )
    lab.check("the client keeps the pair of ports", lab.client.time_waits() == 1)
    lab.exactly("closing", closing)
    lab.picture(
        Look.SEQUENCE,
        "Closing in three segments: the delayed ACK rides on the FIN",
        seen,
        note="FIN with ack 1002: I have read your end, and this is mine.",
        from_ms=seen.at_ms(seen.flights[begin].sent.time_ns),
    )
