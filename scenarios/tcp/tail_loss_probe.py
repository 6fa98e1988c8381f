"""A lost tail has no followers to complain: a probe makes the receiver tell what is missing."""

from lab import scenario
from lab.wire import Delay, Drop, Look, TwoHosts, data

# the probe is a little late: TCP takes an answer faster than every round trip so far for one to
# the lost original
hosts = TwoHosts(
    rules=(Drop(data(5, 6)), Delay(data(7), 15)),
    delay_ms=20,
    sysctls=(("ipv4.tcp_early_retrans", "3"), ("ipv4.tcp_sack", "1")),
)


@scenario(hosts)
def tail_loss_probe(lab):
    """Six segments, the last two are lost; two round trips later the sixth goes as a probe."""
    client, server = lab.connect()
    lab.deliver(client, server, 6000, quiet_ms=400)
    seen = lab.recording()
    again, lost = seen.retransmissions(), seen.lost()
    lab.check("the stream arrives intact", server.intact and server.received == 6000)
    lab.effect("the last two segments are lost", [f.sent.seq for f in lost] == [4001, 5001])
    lab.effect("the last goes first, as a probe", [f.sent.seq for f in again] == [5001, 4001])
    wait_ms = (again[0].sent.time_ns - lost[-1].sent.time_ns) / 1e6 if again and lost else 0
    lab.effect(
        "two round trips after it was lost, before any timer",
        80 <= wait_ms < 240,
        detail=f"{wait_ms}",
    )
    lab.effect("the kernel counts a loss probe", seen.client["TCPLossProbes"] == 1)
    lab.effect("and recovers by SACK", seen.client["TCPSackRecovery"] == 1)
    lab.check("no timer fires", seen.client["TCPTimeouts"] == 0)
    lab.exactly("order", [(f.sent.seq, f.lost) for f in seen.data()])
    lab.picture(
        Look.SEQUENCE,
        "The last two segments are lost: a probe after two round trips",
        seen,
        from_ms=55,
        note="The probe is the last segment once more. Its ACK says what is missing (sack).",
        linux="tail loss probe (tcp_early_retrans=3); without it the timer waits 240 ms",
    )
