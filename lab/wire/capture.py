"""A recording as pcapng, for Wireshark and tshark."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path

from lab.packets import pcapng
from lab.wire.judge import Fate
from lab.wire.record import CLIENT, SERVER, End, Segment
from lab.wire.recording import Recording
from lab.wire.rules import describe


class Vantage(Enum):
    """Where packets are written down from."""

    CLIENT = CLIENT
    SERVER = SERVER
    BOTH = "both"


def save(recording: Recording, path: Path, *, vantage: Vantage = Vantage.BOTH) -> Path:
    """Leave what the hosts' devices saw as a pcapng file at ``path`` and return the path.

    Each host is an interface; a lost packet is written where it was sent, with its fate as the
    packet's comment. One vantage is what an analyser expects: with both it sees packets twice.

    Args:
        recording: what to write.
        path: of the file; an older one is replaced.
        vantage: whose device.
    """
    places = [host for host in (CLIENT, SERVER) if vantage.value in (host, Vantage.BOTH.value)]
    interfaces = [pcapng.Interface(name=host, description=f"eth0 of the {host}") for host in places]
    since_1970_ns = time.time_ns() - time.monotonic_ns()
    fates = {id(flight.sent): flight.fate for flight in recording.flights}
    packets = [
        pcapng.Packet(
            interface=places.index(row.host),
            time_ns=row.time_ns + since_1970_ns,
            data=row.frame,
            length=row.frame_bytes,
            comment=_comment(row, fates.get(id(row), Fate.DELIVERED)),
            direction=pcapng.Direction.OUTBOUND
            if row.end is End.SENT
            else pcapng.Direction.INBOUND,
        )
        for row in recording.segments
        if row.host in places
    ]
    rules = "; ".join(describe(rule) for rule in recording.script.rules)
    return pcapng.write(path, interfaces, packets, comment=rules or "a perfect wire")


def _comment(row: Segment, fate: Fate) -> str:
    parts = [] if fate is Fate.DELIVERED else [fate.value]
    if row.state:
        parts.append(f"cwnd {row.state.cwnd}, {row.state.in_flight} in flight")
    return ", ".join(parts)
