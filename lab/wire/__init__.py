"""Two hosts and a wire with exact loss, delay and order; every segment recorded at both ends."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.wire.bench import Bench
    from lab.wire.endpoint import Endpoint, SocketOptions, TcpInfo
    from lab.wire.events import CongestionState
    from lab.wire.frames import Flag
    from lab.wire.hosts import TICK_MS, Host, Medium, TwoHosts, is_timer
    from lab.wire.judge import Fate
    from lab.wire.picture import Look, Picture
    from lab.wire.record import Flight, Segment
    from lab.wire.recording import Recording
    from lab.wire.rules import (
        Corrupt,
        Delay,
        Drop,
        Duplicate,
        Kind,
        Rate,
        Reorder,
        Script,
        Way,
        ack,
        data,
        datagram,
        everything,
        fin,
        syn,
        syn_ack,
        window_update,
    )

__all__ = [
    "TICK_MS",
    "Bench",
    "CongestionState",
    "Corrupt",
    "Delay",
    "Drop",
    "Duplicate",
    "Endpoint",
    "Fate",
    "Flag",
    "Flight",
    "Host",
    "Kind",
    "Look",
    "Medium",
    "Picture",
    "Rate",
    "Recording",
    "Reorder",
    "Script",
    "Segment",
    "SocketOptions",
    "TcpInfo",
    "TwoHosts",
    "Way",
    "ack",
    "data",
    "datagram",
    "everything",
    "fin",
    "is_timer",
    "syn",
    "syn_ack",
    "window_update",
]

_HOMES = {
    "bench": ("Bench",),
    "endpoint": ("Endpoint", "SocketOptions", "TcpInfo"),
    "events": ("CongestionState",),
    "frames": ("Flag",),
    "hosts": ("Host", "Medium", "TICK_MS", "TwoHosts", "is_timer"),
    "judge": ("Fate",),
    "picture": ("Look", "Picture"),
    "record": ("Flight", "Segment"),
    "recording": ("Recording",),
    "rules": (
        "Corrupt",
        "Delay",
        "Drop",
        "Duplicate",
        "Kind",
        "Rate",
        "Reorder",
        "Script",
        "Way",
        "ack",
        "data",
        "datagram",
        "everything",
        "fin",
        "syn",
        "syn_ack",
        "window_update",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    # the wire's own process imports this package too and must not pay for netlink and BPF
    if name in _HOME_OF:
        return getattr(import_module(f"lab.wire.{_HOME_OF[name]}"), name)
    raise AttributeError(name)
