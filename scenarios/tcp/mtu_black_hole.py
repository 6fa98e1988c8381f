"""Large packets vanish without an ICMP word; probing for the path's MTU gets through."""

from lab import scenario
from lab.wire import Drop, Look, TwoHosts, Way, everything

hosts = TwoHosts(
    rules=(Drop(everything(Way.TO_SERVER, longer_than_bytes=600)),),
    delay_ms=2,
    sysctls=(("ipv4.tcp_base_mss", "500"), ("ipv4.tcp_retries1", "1")),
)


@scenario(hosts)
def mtu_black_hole(lab):
    """A hop carries 600 bytes at most and drops the rest silently; segments have 1000."""
    client, server = lab.connect()
    lab.deliver(client, server, 300)
    lab.check("the handshake and a small request pass", server.received == 300)
    client.send(2000)
    lab.effect("a large one does not", not server.wait_readable(0.9))
    # at once: the third timeout comes after 1.4 seconds
    lab.client.set_sysctl("ipv4.tcp_mtu_probing", "1")
    server.receive(2000)
    lab.wait_quiet()
    info, seen = client.info(), lab.recording()
    tried = [flight for flight in seen.retransmissions() if flight.lost]
    lab.effect("though it is sent again and again", len(tried) >= 2)
    lab.check("nobody says why", seen.client["IcmpInDestUnreachs"] == 0)
    sizes = {flight.sent.length for flight in seen.data() if not flight.lost}
    lab.check("the stream arrives intact", server.intact and server.received == 2300)
    lab.effect("with MTU probing segments shrink until they pass", info.snd_mss <= 500)
    lab.effect("and nothing over 560 bytes ever arrived", max(sizes) <= 560, detail=str(sizes))
    lab.exactly("sizes", sorted(sizes))
    lab.picture(
        Look.SEQUENCE,
        "A hop drops packets over 600 bytes without a word: only smaller segments pass",
        seen,
        from_ms=seen.at_ms(seen.data()[0].sent.time_ns),
        note="After the second timeout tcp_mtu_probing is switched on: TCP tries segments of 500.",
    )
