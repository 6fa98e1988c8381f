"""A host made of thirty lines: a program behind a TUN device answers ICMP echo requests."""

from lab import scenario
from lab.packets.icmp import ECHO_REPLY, ECHO_REQUEST, checksum
from lab.wire import Look, TwoHosts

hosts = TwoHosts(delay_ms=5)
PAYLOAD = b"written by hand"


def answer(packet):
    """Turn a whole IP packet with an echo request into its reply; None for anything else."""
    header_bytes = (packet[0] & 15) * 4
    header, icmp = packet[:header_bytes], packet[header_bytes:]
    if header[9] != 1 or icmp[0] != ECHO_REQUEST:
        return None
    source, destination = header[12:16], header[16:20]
    fields = header[:8] + bytes([64]) + header[9:10] + b"\0\0" + destination + source + header[20:]
    fields = fields[:10] + checksum(fields).to_bytes(2, "big") + fields[12:]
    blank = bytes([ECHO_REPLY, 0, 0, 0]) + icmp[4:]
    return fields + blank[:2] + checksum(blank).to_bytes(2, "big") + blank[4:]


@scenario(hosts)
def tun_echo(lab):
    """The client pings 10.8.0.2, an address nobody has but the program."""
    pinger = lab.pinger("10.8.0.2")
    with lab.open_tun() as tun:
        pinger.send(1, PAYLOAD)
        request = tun.read()
        lab.check("what is read begins with the IP header", request[0] >> 4 == 4)
        lab.check("its own checksum is right", checksum(request[:20]) == 0)
        lab.check("the server's kernel took one off the time to live", request[8] == 63)
        tun.write(answer(request))
        lab.check("the program's reply reaches the client", pinger.reply() == (1, PAYLOAD))

        pinger.send(2, PAYLOAD)
        broken = bytearray(answer(tun.read()))
        broken[-1] ^= 1
        tun.write(bytes(broken))
        lab.check("a reply with a wrong checksum is not counted", heard(lab) == 1)
        lab.check("though a raw socket sees even that", pinger.reply() is not None)
        lab.check("a packet that is no request gets no answer", answer(broken) is None)
    lab.wait_quiet()
    pinger.send(3, PAYLOAD)
    lab.check("without the program nobody answers", pinger.reply(within_s=0.1) is None)
    lab.exactly("replies", heard(lab))
    lab.picture(
        Look.SEQUENCE,
        "Ping: a program behind a TUN device answers",
        lab.recording(),
        note="10.8.0.2 is thirty lines of Python behind the server. The third time it is gone.",
    )


def heard(lab):
    """Return how many echo replies the client's kernel has accepted."""
    lab.wait_quiet()
    return lab.client.counters()["IcmpInEchoReps"]
