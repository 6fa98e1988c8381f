"""Who spoiled a checksum: the sights of a packet from when it was right to when it was not."""

from __future__ import annotations

from enum import Enum, auto

from lab.names import VXLAN_PORT
from lab.observe.causes import Cause
from lab.observe.headers import TCP, UDP, network_bytes_of
from lab.trace import Hop, Step, Trace

_IP_BYTES = 20
_FIELD = {UDP: 6, TCP: 16}
"""Where the checksum stands in the transport header."""


class Sum(Enum):
    """What is known of a checksum."""

    RIGHT = auto()
    TO_BE_MADE = auto()
    """Only the sum over addresses and length stands there: a device is to do the rest."""
    WRONG = auto()
    UNKNOWN = auto()


def spoiled(trace: Trace, drop: Hop) -> Cause | None:
    """Return who spoiled the checksum for which a packet was dropped; None if it is not proven.

    Args:
        trace: of the packet.
        drop: its last line, with reason ``IP_CSUM``, ``UDP_CSUM`` or ``TCP_CSUM``.
    """
    of = ip_sum if drop.drop_reason == "IP_CSUM" else transport_sum
    said = Cause(f"its {drop.drop_reason.removesuffix('_CSUM')} checksum is wrong", "")
    good: int | None = None
    for index, hop in enumerate(trace.hops):
        if not hop.before or hop.step is Step.CLEAN_RX:
            continue  # that is about the copy the program is given, and told behind it
        state = of(_network(hop))
        if state is Sum.WRONG and good is not None:
            return _changed(said, trace.hops[good : index + 1])
        if state in (Sum.RIGHT, Sum.TO_BE_MADE):
            good = index
    frames = [hop for hop in trace.taken if hop.step is Step.XDP_DRIVER and hop.program]
    sent_on = [hop for hop in frames if hop.verdict in ("redirect", "tx")]
    if sent_on and good is not None and of(_network(trace.hops[good])) is Sum.TO_BE_MADE:
        return Cause(
            f"{said.what}: the sender left it to a device, and {_who(sent_on[-1])} sent the packet "
            "on as a frame, which does not say so",
            "Turn off checksum offload at the sender: ethtool -K eth0 tx off.",
        )
    return None


def _changed(said: Cause, between: tuple[Hop, ...]) -> Cause | None:
    """Name the programs between two sights: with several, any of them may have done it."""
    who = " or ".join(dict.fromkeys(_who(hop) for hop in between if hop.program))
    if not who:
        return None
    return Cause(
        f"{said.what}: {who} changed it and not its checksum",
        "Let the program correct the checksum of what it changes (bpf_csum_diff; on tc also "
        "bpf_l3_csum_replace and bpf_l4_csum_replace).",
    )


def _who(hop: Hop) -> str:
    kind = "XDP program" if hop.hook in ("xdp", "generic_xdp") else "program"
    return f"{kind} {hop.program} at {hop.namespace}/{hop.device}"


def _network(hop: Hop) -> bytes:
    data = hop.before or b""
    # once bytes before and after were told apart, both begin with the network header
    return network_bytes_of(data) if hop.link_layer == "ethernet" else data


def ip_sum(data: bytes) -> Sum:
    """Judge the checksum of an IPv4 header (RFC 791).

    Args:
        data: from the network header on.
    """
    header = (data[0] & 15) * 4 if data else 0
    if len(data) < _IP_BYTES or len(data) < header:
        return Sum.UNKNOWN
    # with the checksum's complement in it, the sum of a right header is all ones
    return Sum.RIGHT if _folded(data[:header]) == 0xFFFF else Sum.WRONG


def transport_sum(data: bytes) -> Sum:
    """Judge the checksum of a whole UDP or TCP packet (RFC 768, RFC 9293).

    Args:
        data: from the network header on; of a packet that was cut short nothing is known.
    """
    if len(data) < _IP_BYTES or data[9] not in _FIELD:
        return Sum.UNKNOWN
    header, total = (data[0] & 15) * 4, int.from_bytes(data[2:4], "big")
    body = data[header:total]
    at = _FIELD[data[9]]
    if len(data) < total or len(body) < at + 2:
        return Sum.UNKNOWN
    field = int.from_bytes(body[at : at + 2], "big")
    outer = data[9] == UDP and int.from_bytes(body[2:4], "big") == VXLAN_PORT
    if outer or (data[9] == UDP and not field):
        return Sum.UNKNOWN  # a tunnel's outer header, or a datagram without one
    addresses = data[12:20] + bytes((0, data[9])) + len(body).to_bytes(2, "big")
    if field == _folded(addresses):
        return Sum.TO_BE_MADE
    return Sum.RIGHT if _folded(addresses + body) == 0xFFFF else Sum.WRONG


def _folded(data: bytes) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071), not yet complemented."""
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
