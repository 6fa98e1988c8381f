"""When the handshake's last ACK is lost, one side is connected and the other is not yet."""

from lab import scenario
from lab.wire import Drop, Look, TwoHosts, Way, ack, is_timer

hosts = TwoHosts(rules=(Drop(ack(1, way=Way.TO_SERVER)),), delay_ms=20)


@scenario(hosts)
def half_open(lab):
    """The client sends nothing after connecting; the server asks for the ACK after a second."""
    listener = lab.listen()
    client = lab.endpoint()
    client.raw.connect(lab.server_address)
    lab.check("the client is connected after one round trip", client.info().state == 1)
    listener.settimeout(0.5)
    lab.effect("the server has nothing to accept", not lab.accepts(listener))
    listener.settimeout(5)
    lab.check("a second later it has", lab.accepts(listener))
    lab.wait_quiet()
    seen = lab.recording()
    flags = seen.flags()
    repeated = [f for f in seen.flights if f.sent.host == "server"]
    wait_ms = (repeated[-1].sent.time_ns - repeated[0].sent.time_ns) / 1e6
    lab.effect(
        "the SYN-ACK is sent again and answered again",
        flags == ("> SYN", "< SYN|ACK", "> ACK", "< SYN|ACK", "> ACK"),
    )
    lab.effect(
        "after 1 second",
        is_timer(wait_ms, 1000),
        detail=f"{wait_ms:.0f} ms",
    )
    lab.exactly("flags", flags)
    lab.picture(
        Look.SEQUENCE,
        "Half open: the last ACK of the handshake is lost",
        seen,
        note="In between the client is connected and the server is not: nothing to accept.",
    )
