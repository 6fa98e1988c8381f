"""If the server closes at once too, its ACK and its FIN travel together."""

from lab import scenario
from lab.wire import Look, TwoHosts

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def close_in_three(lab):
    """The server closes as soon as it reads the end of the client's stream."""
    client, server = lab.connect()
    server.set_quick_ack(False)
    client.end()
    server.receive_until_end()
    server.end()
    client.receive_until_end()
    lab.wait_quiet(for_ms=120)
    seen = lab.recording()
    closing = seen.flags()[3:]
    lab.check("FIN, FIN with ACK, ACK", closing == ("> FIN|ACK", "< FIN|ACK", "> ACK"))
    both = seen.flights[4].sent
    lab.check("the server's FIN acknowledges the client's", both.ack == 2)
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
        from_ms=seen.at_ms(seen.flights[3].sent.time_ns),
    )
