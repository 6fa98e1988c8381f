"""Each direction is closed by itself: FIN and ACK, twice."""

from lab import scenario
from lab.wire import Look, TwoHosts

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def close_in_four(lab):
    """The client ends first; the server still sends 1000 bytes before it ends too."""
    client, server = lab.connect()
    client.end()
    lab.check("the server reads the end of the stream", server.receive_until_end() == b"")
    lab.wait_ms(100)
    server.send(1000)
    lab.check("the closed side still receives", client.receive(1000) and client.intact)
    lab.wait_quiet(for_ms=120)
    server.end()
    lab.check("the client reads the end", client.receive_until_end() == b"")
    lab.wait_quiet()
    seen = lab.recording()
    closing = tuple(flag for flag in seen.flags()[3:] if flag)
    lab.check(
        "FIN, ACK, data, ACK, FIN, ACK",
        closing == ("> FIN|ACK", "< ACK", "< ACK", "> ACK", "< FIN|ACK", "> ACK"),
        detail=str(closing),
    )
    states = [state.name for state in seen.tcp_states()]
    lab.check(
        "client: FIN_WAIT1, FIN_WAIT2, then TIME_WAIT", states[2:4] == ["FIN_WAIT1", "FIN_WAIT2"]
    )
    states = [state.name for state in seen.tcp_states(at_client=False) if state.name != "LISTEN"]
    lab.check(
        "server: CLOSE_WAIT, LAST_ACK, CLOSE", states[-3:] == ["CLOSE_WAIT", "LAST_ACK", "CLOSE"]
    )
    lab.check("the client keeps the pair of ports", lab.client.time_waits() == 1)
    lab.exactly("closing", closing)
    lab.picture(
        Look.SEQUENCE,
        "Closing in four segments: FIN, ACK and, when the server is ready, FIN, ACK",
        seen,
        note="What the server still sends in between, 1-1000, is no part of the closing.",
        from_ms=seen.at_ms(seen.flights[3].sent.time_ns),
    )
