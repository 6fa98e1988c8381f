"""Congestion avoidance: one segment more per round trip, half after each loss."""

from statistics import median

from lab import scenario
from lab.wire import Look, Rate, SocketOptions, TwoHosts, Way

hosts = TwoHosts(
    rules=(Rate(way=Way.TO_SERVER, rate_mbit=5, queue_packets=20),),
    delay_ms=10,
    sysctls=(("ipv4.tcp_sack", "1"), ("ipv4.tcp_window_scaling", "1")),
)
TOTAL = 1_800_000


@scenario(hosts)
def aimd(lab):
    """Three seconds of reno over 5 Mbit/s with room for 20 packets."""
    lab.varies("what the queue drops depends on when the sender's segments come to lie in it")
    client, server = lab.connect(client=SocketOptions(congestion_control="reno"))
    lab.transfer(client, server, TOTAL)
    lab.wait_quiet()
    seen = lab.recording()
    cuts = [event for event in seen.entered("RECOVERY")]
    lab.check("the stream arrives intact", server.intact and server.received == TOTAL)
    lab.effect("the queue overflows several times", len(cuts) >= 3, detail=str(len(cuts)))
    lab.effect(
        "each time the window is halved",
        cuts and all(cut.ssthresh == max(cut.cwnd // 2, 2) for cut in cuts),
        detail=str([(cut.cwnd, cut.ssthresh) for cut in cuts]),
    )
    lab.check(
        "what was lost is sent again, nothing else", len(seen.retransmissions()) == len(seen.lost())
    )
    teeth = [seen.growth_per_round(a, b) for a, b in zip(cuts, cuts[1:], strict=False)][1:]
    lab.effect(
        "in between it grows by one segment per round trip (the median)",
        teeth and 0.8 <= median(teeth) <= 1.2,
        detail=str(teeth),
    )
    lab.check("no timer fires", seen.client["TCPTimeouts"] == 0)
    lab.exactly("halved", {cut.cwnd // 2 - cut.ssthresh for cut in cuts})
    lab.exactly("states", sorted({state.name for state in seen.congestion_states()}))
    lab.picture(
        Look.WINDOW,
        "The sawtooth: one more per round trip, half after a loss",
        seen,
        seed="on congestion the window falls to its initial value",
        linux="it falls to half; to the beginning only after a timeout",
    )
