"""An answer within 40 ms carries the acknowledgement; a slower one lets it go alone."""

from lab import scenario
from lab.wire import Kind, Look, SocketOptions, TwoHosts, Way

hosts = TwoHosts(delay_ms=2)
REQUESTS = 5
THINK_MS = (0, 10, 90)


@scenario(hosts)
def piggybacking(lab):
    """Five questions each to a server that thinks for 0, 10 and 90 ms."""
    quick = SocketOptions(no_delay=True)
    lab.varies("which ACK rides on an answer depends on how soon the application reads")
    client, server = lab.connect(client=quick, server=quick)
    alone, carried = [], []
    for think_ms in (0, *THINK_MS):
        before = len(lab.recording().flights)
        for _ in range(REQUESTS):
            for end in (client, server):
                end.set_quick_ack(False)
            client.send(11)
            server.receive(11)
            if think_ms:
                lab.wait_ms(think_ms)
            server.send(16)
            client.receive(16)
        lab.wait_quiet(for_ms=80)
        answers = [f.sent for f in lab.recording().flights[before:] if f.sent.way is Way.TO_CLIENT]
        alone.append(sum(sent.kind is Kind.PURE_ACK for sent in answers))
        carried.append(sum(sent.kind is Kind.DATA for sent in answers))
    lab.check("both streams arrive intact", server.intact and client.intact)
    lab.check("every answer also acknowledges", carried == [REQUESTS] * 4)
    lab.check("answers at once: no pure ACK", alone[1] == 0)
    lab.check("answers after 10 ms: no pure ACK", alone[2] == 0, detail=str(alone))
    lab.check("answers after 90 ms: a pure ACK each", alone[3] == REQUESTS, detail=str(alone))
    seen = lab.recording()
    lab.exactly("pure ACKs", alone[1:])
    slow = seen.data()[-1].sent.time_ns
    lab.picture(
        Look.SEQUENCE,
        "The answer carries the ACK, unless it takes longer than 40 ms",
        seen,
        name="slow-answer",
        note="The server thinks for 90 ms. After 40 ms its ACK leaves alone.",
        from_ms=seen.at_ms(slow),
    )
    first, second = [f.sent.time_ns for f in seen.data()][REQUESTS : REQUESTS + 2]
    lab.picture(
        Look.SEQUENCE,
        "The answer carries the ACK: How are you? Fine, thank you",
        seen,
        name="quick-answer",
        note="One segment is both: the answer, and the ACK of the question.",
        from_ms=seen.at_ms(first),
        to_ms=seen.at_ms(second) - 0.01,
    )
