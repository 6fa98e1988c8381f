"""A full accept queue ignores connection requests; there is room again after an accept."""

from lab import scenario
from lab.wire import Look, TwoHosts, is_timer

hosts = TwoHosts(delay_ms=5)


@scenario(hosts)
def syn_backlog(lab):
    """The queue holds two connections; the third client has to ask twice."""
    listener = lab.listen(backlog=1)
    first, second = lab.endpoint(), lab.endpoint()
    for client in (first, second):
        client.raw.connect(lab.server_address)
    lab.wait_quiet()
    third = lab.endpoint()
    third.raw.setblocking(False)
    third.raw.connect_ex(lab.server_address)
    lab.wait_quiet(for_ms=100)
    lab.check("the third stays in SYN_SENT", third.info().state == 2)
    lab.check("its request was thrown away", lab.server.counters()["ListenOverflows"] == 1)
    lab.check("one connection is accepted", lab.accepts(listener))
    lab.wait_until(lambda: third.info().state == 1, "the third connection")
    lab.wait_quiet()
    seen = lab.recording()
    asked = [f.sent.time_ns for f in seen.flights if f.sent.flags.name == "SYN"]
    wait_ms = (asked[3] - asked[2]) / 1e6
    lab.check("then the third's second request succeeds", len(asked) == 4)
    lab.check("it came after 1 second", is_timer(wait_ms, 1000), detail=f"{wait_ms}")
    lab.check("the wire lost nothing", not seen.lost())
    lab.exactly("flags", seen.flags())
    lab.picture(
        Look.SEQUENCE,
        "A full backlog: the third SYN gets no answer the first time",
        seen,
        note="Two connections wait to be accepted, more have no room until the server accepts one.",
    )
