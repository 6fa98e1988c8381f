"""After the same loss reno keeps half of its window, cubic seven tenths."""

from lab import scenario
from lab.wire import Drop, Look, SocketOptions, TwoHosts, data

hosts = TwoHosts(
    rules=(Drop(data(60)),),
    delay_ms=15,
    sysctls=(
        ("ipv4.tcp_sack", "1"),
        ("ipv4.tcp_window_scaling", "1"),
        ("ipv4.tcp_rmem", "4096 4194304 6291456"),
        ("ipv4.tcp_wmem", "4096 4194304 6291456"),
    ),
)
TOTAL = 500_000


@scenario(hosts)
def reno_vs_cubic(lab):
    """The sixtieth segment of each connection is lost."""
    ports = []
    for number, name in enumerate(("reno", "cubic")):
        client, server = lab.connect(
            client=SocketOptions(congestion_control=name), port=5000 + number
        )
        lab.deliver(client, server, TOTAL)
        lab.check(f"{name}: the stream arrives intact", server.intact)
        ports.append(client.raw.getsockname()[1])
        lab.wait_quiet()
        if name == "reno":
            lab.impair(*lab.hosts.rules)
    seen = lab.recording()
    kept = []
    for port, name in zip(ports, ("reno", "cubic"), strict=True):
        cuts = seen.connection(port).entered("RECOVERY")
        lab.effect(f"{name}: one loss, one cut", len(cuts) == 1)
        kept += [cut.ssthresh / cut.cwnd for cut in cuts]
    lab.effect("reno keeps a half", kept and 0.48 <= kept[0] <= 0.5, detail=str(kept))
    lab.effect("cubic keeps 0.7", len(kept) == 2 and 0.68 <= kept[1] <= 0.7, detail=str(kept))
    lab.check("no timer fires", seen.client["TCPTimeouts"] == 0)
    lab.exactly("cuts", len(kept))
    lab.picture(
        Look.COMPARISON,
        "One loss each: reno halves, cubic keeps 0.7 and comes back sooner",
        seen,
        labels=("reno", "cubic"),
    )
