"""What is known of a checksum, and who spoiled it. Scapy makes the packets: it is the oracle."""

from dataclasses import replace

import pytest

from lab.observe.checksum import Sum, ip_sum, spoiled, transport_sum
from lab.packets import frames
from lab.trace import Evidence, Hop, PacketId, Step, Trace

MACS, ENDS, PORTS = ("02:00:00:00:00:01",) * 2, ("10.0.1.10", "10.0.2.10"), (4000, 5000)
UDP = frames.udp(MACS, ENDS, PORTS, b"hello, odd")
ODD = frames.udp(MACS, ENDS, PORTS, b"hello")
TCP = frames.tcp(MACS, ENDS, PORTS, "PA", b"hello")
TUNNEL = frames.udp(MACS, ENDS, (50000, 8472), frames.vxlan_payload(UDP, 7))
IP, TRANSPORT = 14, 34


def with_byte(frame: bytes, at: int) -> bytes:
    """The frame with one byte changed."""
    return frame[:at] + bytes((frame[at] ^ 0x20,)) + frame[at + 1 :]


def to_be_made(frame: bytes) -> bytes:
    """The datagram with the sum over its addresses alone, as a socket leaves it to a device."""
    body = frame[TRANSPORT:]
    words = frame[26:34] + bytes((0, 17)) + len(body).to_bytes(2, "big")
    total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, len(words), 2))
    total = (total & 0xFFFF) + (total >> 16)
    return frame[: TRANSPORT + 6] + total.to_bytes(2, "big") + frame[TRANSPORT + 8 :]


SUMS = {
    "a datagram": (UDP, Sum.RIGHT),
    "a datagram with an odd number of bytes": (ODD, Sum.RIGHT),
    "a segment": (TCP, Sum.RIGHT),
    "a datagram with another payload": (with_byte(UDP, -1), Sum.WRONG),
    "a segment with another port": (with_byte(TCP, TRANSPORT), Sum.WRONG),
    "a datagram whose sum a device is to make": (to_be_made(UDP), Sum.TO_BE_MADE),
    "a datagram without a sum": (UDP[:40] + bytes(2) + UDP[42:], Sum.UNKNOWN),
    "a datagram cut short": (UDP[:-1], Sum.UNKNOWN),
    "a tunnel's outer header": (TUNNEL, Sum.UNKNOWN),
    "a frame with padding behind it": (ODD + bytes(9), Sum.RIGHT),
}


@pytest.mark.parametrize(("frame", "state"), SUMS.values(), ids=SUMS.keys())
def test_a_transport_checksum_is_judged(frame: bytes, state: Sum) -> None:
    assert transport_sum(frame[IP:]) is state


def test_an_ip_checksum_is_judged() -> None:
    assert ip_sum(UDP[IP:]) is Sum.RIGHT
    assert ip_sum(with_byte(UDP, IP + 8)[IP:]) is Sum.WRONG
    assert ip_sum(UDP[IP : IP + 12]) is Sum.UNKNOWN


SEEN = Hop(
    step=None, hook="dev_xmit", evidence=Evidence.TRACEPOINT, namespace="alpha", device="eth0",
    before=UDP,
)  # fmt: skip
BAD = with_byte(UDP, -1)
XDP = replace(SEEN, step=Step.XDP_DRIVER, hook="xdp", program="mine", verdict="pass")
DROP = replace(
    SEEN, step=Step.L4_RECEIVE, hook="udp_rcv", verdict="drop", drop_reason="UDP_CSUM", before=BAD
)
TC = replace(SEEN, step=Step.TC_INGRESS, hook="tc_ingress", program="other", verdict="pass")
LEFT, AWAY = replace(SEEN, before=to_be_made(UDP)), replace(XDP, verdict="redirect", before=None)
SPOILED = {
    "the program between right and wrong": ((SEEN, XDP, DROP), "XDP program mine at alpha/eth0"),
    "a classifier": ((SEEN, TC, DROP), "program other at alpha/eth0"),
    "one of two programs": (
        (SEEN, replace(XDP, before=None), replace(TC, before=None), DROP),
        "XDP program mine at alpha/eth0 or program other at alpha/eth0 changed it",
    ),
    "nobody between": ((SEEN, DROP), None),
    "wrong from the start": ((replace(SEEN, before=BAD), replace(XDP, before=BAD), DROP), None),
    "a frame sent on before the sum was made": (
        (LEFT, AWAY, replace(DROP, before=LEFT.before)), "sent the packet on as a frame",
    ),
    "a frame that let pass what was to be made": (
        (LEFT, replace(AWAY, verdict="pass"), replace(DROP, before=LEFT.before)), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("hops", "who"), SPOILED.values(), ids=SPOILED.keys())
def test_who_spoiled_it_is_said_only_where_it_is_proven(
    hops: tuple[Hop, ...], who: str | None
) -> None:
    packet = PacketId(protocol="udp", source=ENDS[0], destination=ENDS[1])
    cause = spoiled(Trace(packet=packet, hops=hops), hops[-1])
    assert (cause is not None) == (who is not None)
    assert who is None or (cause is not None and who in cause.what)
