"""Write, write, read: Nagle waits for an ACK that the other side delays by 40 ms."""

from statistics import median

from lab import scenario
from lab.wire import Look, SocketOptions, TwoHosts, is_timer

hosts = TwoHosts(delay_ms=1)
ROUNDS = 4


@scenario(hosts)
def nagle_delayed_ack(lab):
    """A request in two writes of 10 bytes, with and without TCP_NODELAY and TCP_QUICKACK."""
    lab.varies("which ACK rides on an answer depends on how soon the application reads")
    waits = {
        "neither": ask(lab, 5000),
        "no delay": ask(lab, 5001, no_delay=True),
        "quick ack": ask(lab, 5002, quick_ack=True),
    }
    slow = waits["neither"]
    lab.check(
        "with both algorithms each request waits for the delayed ACK, 40 ms and more",
        all(is_timer(wait, 40, below_ms=200) for wait in slow),
        detail=str(slow),
    )
    lab.check("with TCP_NODELAY they do not", median(waits["no delay"]) < 36, detail=str(waits))
    lab.check("with TCP_QUICKACK they do not", median(waits["quick ack"]) < 36, detail=str(waits))
    seen = lab.recording()
    port = seen.data()[0].sent.port
    both = [f for f in seen.data() if f.sent.port == port]
    lab.exactly("segments", [(f.sent.seq, f.sent.length) for f in both])
    lab.picture(
        Look.SEQUENCE,
        "Nagle waits for the ACK, the ACK waits for more data: 40 ms lost",
        seen.connection(port),
        note="Two writes of 10 bytes at once: the second has to wait for the first one's ACK.",
        from_ms=seen.at_ms(both[-2].sent.time_ns),
        to_ms=seen.at_ms(both[-2].sent.time_ns) + 60,
    )


def ask(lab, port, *, no_delay=False, quick_ack=False):
    """Return how many milliseconds each of four requests took."""
    client, server = lab.connect(client=SocketOptions(no_delay=no_delay), port=port)
    waits = []
    for _ in range(ROUNDS):
        server.set_quick_ack(quick_ack)
        begun_ns = lab.now_ns()
        client.send(10)
        client.send(10)
        server.receive(10)
        server.set_quick_ack(quick_ack)
        server.receive(10)
        server.send(5)
        client.receive(5)
        waits.append((lab.now_ns() - begun_ns) / 1e6)
    return waits
