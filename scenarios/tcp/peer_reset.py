"""A reset ends the connection at once; what was on its way is gone."""

from lab import scenario
from lab.wire import Kind, Look, TwoHosts, Way

hosts = TwoHosts(delay_ms=20)


@scenario(hosts)
def peer_reset(lab):
    """The server aborts while three segments are in its buffer."""
    client, server = lab.connect()
    client.send(3000)
    server.wait_readable()
    lab.wait_quiet()
    server.reset()
    lab.check("the client wakes up", client.wait_readable())
    lab.check("with ECONNRESET", client.error() == "ECONNRESET")
    lab.wait_quiet()
    seen = lab.recording()
    resets = seen.of(Kind.RST, Way.TO_CLIENT)
    lab.check("one RST says it", len(resets) == 1)
    lab.check("nothing answers a reset", seen.flights[-1] is resets[-1])
    lab.check("client: ESTABLISHED, CLOSE", seen.tcp_states()[-1].name == "CLOSE")
    lab.check("nobody waits in TIME_WAIT", lab.client.time_waits() + lab.server.time_waits() == 0)
    lab.exactly("flags", seen.flags())
    lab.picture(
        Look.SEQUENCE,
        "RST: the connection ends without a farewell",
        seen,
        note="3000 bytes were acknowledged and never read. The client reads ECONNRESET.",
    )
