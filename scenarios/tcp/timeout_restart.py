"""The textbook curve: exponential to the threshold, linear, a timeout, and again from 1."""

from lab import scenario
from lab.wire import Drop, Look, TwoHosts, data

# all 32 segments of the sixth round are lost, and later all 24 of one: only the timer is left
hosts = TwoHosts(
    rules=(Drop(data(*range(32, 64), *range(235, 259))),),
    delay_ms=15,
    initial_window=1,
    quick_ack=True,
    sysctls=(
        ("ipv4.tcp_frto", "0"),
        ("ipv4.tcp_window_scaling", "1"),
        ("ipv4.tcp_rmem", "4096 4194304 6291456"),
        ("ipv4.tcp_wmem", "4096 4194304 6291456"),
    ),
)
TOTAL = 400_000


@scenario(hosts)
def timeout_restart(lab):
    """Congestion at 32 segments makes the threshold 16, congestion at 24 makes it 12."""
    client, server = lab.connect()
    lab.deliver(client, server, TOTAL, quiet_ms=600)
    seen = lab.recording()
    rounds = seen.rounds()
    lab.check("the stream arrives intact", server.intact and server.received == TOTAL)
    lab.check("it begins 1, 2, 4, 8, 16, 32", rounds[:6] == (1, 2, 4, 8, 16, 32))
    lab.effect("two timers fire", seen.client["TCPTimeouts"] == 2)
    states = [flight.sent.state for flight in seen.retransmissions()]
    cuts = [state.ssthresh for state in states if state.cwnd == 1]
    lab.effect("the threshold becomes 16, then 12", cuts == [16, 12], detail=str(cuts))
    lab.effect("exponential to the threshold", rounds[6:11] == (1, 2, 4, 8, 16), detail=str(rounds))
    lab.effect("then one by one: 17, 18 ... 24", rounds[11:19] == tuple(range(17, 25)))
    lab.effect("and the same again to 12", rounds[19:26] == (1, 2, 4, 8, 12, 13, 14))
    lab.exactly("rounds", rounds[:24])
    lab.picture(
        Look.WINDOW,
        "Slow start to the threshold, then linear; a timeout begins again",
        seen,
        seed="congestion always begins again at the start",
        linux="only a timeout does; three duplicate ACKs halve the window",
    )
