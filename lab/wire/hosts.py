"""Two hosts on a wire: the description, and one live host."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lab.errors import InputError, KernelError, UnsupportedError
from lab.kernel.netns import NetworkNamespace
from lab.wire.rules import Rule, Script

TCP_IP_HEADER_BYTES = 40
TIMESTAMP_BYTES = 12
TICK_MS = 4
"""The kernel's timers count in ticks of this many milliseconds here (CONFIG_HZ=250)."""


def is_timer(waited_ms: float, timer_ms: float, *, below_ms: float = 0.0) -> bool:
    """Whether a wait was that of a kernel timer: all its ticks, and none of the next longer timer.

    A timer never fires early. How late it fires depends on its length (the timer wheel rounds 0.25
    to 2 seconds up to 32 ms) and on the machine; the range ends where another timer could be meant.

    Args:
        waited_ms: what was measured.
        timer_ms: what the timer was set to.
        below_ms: where the range ends; half as much again if 0, for timers that double.
    """
    ticks, first = waited_ms / TICK_MS, timer_ms / TICK_MS
    return first <= ticks < (below_ms / TICK_MS or 1.5 * first)


class Medium(Enum):
    """What joins the hosts and carries out the script."""

    WIRE = "wire"
    """A TAP device each and a process in between: every rule, exact delay."""

    VETH = "veth"
    """A veth pair and a program at the receiver's ingress: drop and duplicate, no delay."""

    NETEM = "netem"
    """A veth pair and netem at both ends, where the kernel has it: delay, and what happens to
    every packet alike."""


# What decides how TCP behaves, fixed for every experiment; an experiment may change some.
PINNED: tuple[tuple[str, str], ...] = (
    # the textbook's; a namespace would inherit whatever the machine uses
    ("ipv4.tcp_congestion_control", "reno"),
    # else a connection begins with the ssthresh and round trip that one before it to the same
    # address left behind
    ("ipv4.tcp_no_metrics_save", "1"),
    # no tail loss probe: it would repair what the retransmission timer is to be seen repairing
    ("ipv4.tcp_early_retrans", "0"),
    ("ipv4.tcp_recovery", "1"),
    ("ipv4.tcp_reordering", "3"),
    # cumulative acknowledgements only, unless an experiment is about the others
    ("ipv4.tcp_sack", "0"),
    ("ipv4.tcp_dsack", "0"),
    ("ipv4.tcp_ecn", "0"),
    # twelve bytes of every segment, and a second way to notice a needless retransmission
    ("ipv4.tcp_timestamps", "0"),
    # windows as they stand in the header
    ("ipv4.tcp_window_scaling", "0"),
    # small writes leave when written, not when the device has sent the one before
    ("ipv4.tcp_autocorking", "0"),
    ("ipv4.tcp_slow_start_after_idle", "1"),
    # buffers stay as they are set: a window moves only because of what is read
    ("ipv4.tcp_moderate_rcvbuf", "0"),
    ("ipv4.tcp_rmem", "4096 131072 6291456"),
    ("ipv4.tcp_wmem", "4096 262144 4194304"),
    ("ipv4.tcp_fastopen", "0"),
    # by default only one answer in 500 ms to segments outside the window
    ("ipv4.tcp_invalid_ratelimit", "0"),
    # a full backlog drops; with cookies it would answer all the same
    ("ipv4.tcp_syncookies", "0"),
    # Linux' own numbers, pinned because experiments count up to them
    ("ipv4.tcp_synack_retries", "5"),
    ("ipv4.tcp_syn_retries", "6"),
    # what is left of a closed connection would keep its namespace for a minute
    ("ipv4.tcp_fin_timeout", "2"),
    ("ipv4.tcp_orphan_retries", "1"),
    ("ipv4.tcp_retries2", "15"),
    # client ports that no other rule or server of an experiment uses
    ("ipv4.ip_local_port_range", "40000 40999"),
    # its solicitations and advertisements are packets too, and would be counted
    ("ipv6.conf.all.disable_ipv6", "1"),
    ("ipv6.conf.default.disable_ipv6", "1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoHosts:
    """A client 10.9.0.1 and a server 10.9.0.2 with nothing but a wire between them.

    Attributes:
        rules: the script of the wire.
        delay_ms: one way, for every packet.
        medium: what joins them.
        mss_bytes: payload of a full-size segment; with timestamps, 12 bytes of it are options.
        initial_window: segments a sender may send before the first acknowledgement.
        quick_ack: acknowledge every segment at once (a property of the route).
        sysctls: beyond the pinned ones, as (name below ``net.``, value), in both hosts.

    Raises:
        InputError: the script contradicts itself or lets no full-size segment through, or a
            number is out of range.
        UnsupportedError: the medium cannot delay.
    """

    rules: tuple[Rule, ...] = ()
    delay_ms: float = 0.0
    medium: Medium = Medium.WIRE
    mss_bytes: int = 1000
    initial_window: int = 10
    quick_ack: bool = False
    sysctls: tuple[tuple[str, str], ...] = ()
    name: str = "two hosts"

    def __post_init__(self) -> None:
        if not 88 <= self.mss_bytes <= 1460:
            raise InputError(
                f"a full-size segment of {self.mss_bytes} bytes",
                hint="choose mss_bytes between 88 and 1460",
            )
        if self.delay_ms < 0 or self.initial_window < 1:
            raise InputError(
                f"delay {self.delay_ms} ms, initial window {self.initial_window}",
                hint="a delay is at least 0, an initial window at least 1",
            )
        if self.medium is Medium.VETH and self.delay_ms:
            raise UnsupportedError("a veth pair does not delay", hint="use medium=Medium.WIRE")
        self.script.check_frame_fits(self.mtu_bytes)

    @property
    def script(self) -> Script:
        """The rules, checked."""
        return Script(self.rules)

    @property
    def mtu_bytes(self) -> int:
        """Largest IP packet of the wire."""
        return self.mss_bytes + TCP_IP_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Counters:
    """The kernel's TCP, UDP and IP counters of one host, by the names of ``nstat``."""

    values: tuple[tuple[str, int], ...]

    def __getitem__(self, name: str) -> int:
        """Return one counter, 0 if this kernel does not have it."""
        return dict(self.values).get(name, 0)

    def since(self, before: Counters) -> Counters:
        """Return what was added since ``before``."""
        return Counters(tuple((name, value - before[name]) for name, value in self.values))

    def moved(self) -> tuple[tuple[str, int], ...]:
        """Return the counters that are not 0."""
        return tuple((name, value) for name, value in self.values if value)


class Host:
    """A live host: a namespace with one device towards the wire.

    Attributes:
        name: ``client`` or ``server``.
        address: its IPv4 address.
        ifindex: of its device.
        namespace: where it lives.
    """

    def __init__(self, name: str, address: str, ifindex: int, namespace: NetworkNamespace) -> None:
        self.name = name
        self.address = address
        self.ifindex = ifindex
        self.namespace = namespace
        self._before = self._read_counters()

    def socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """Return a new IPv4 socket that belongs to this host."""
        with self.namespace.entered():
            return socket.socket(socket.AF_INET, kind)

    def counters(self) -> Counters:
        """Return what the host's counters have added since it came up."""
        return self._read_counters().since(self._before)

    def devices(self) -> tuple[str, ...]:
        """Return the names of its devices, by interface index."""
        with self.namespace.entered():
            return tuple(name for _, name in sorted(socket.if_nameindex()))

    def time_waits(self) -> int:
        """Return how many closed connections still keep their pair of ports (TIME_WAIT)."""
        with self.namespace.entered():
            lines = Path("/proc/thread-self/net/sockstat").read_text().splitlines()
        words = next(line.split() for line in lines if line.startswith("TCP:"))
        return int(words[words.index("tw") + 1])

    def set_sysctl(self, name: str, value: str) -> None:
        """Change a setting of this host only, by its name below ``net.``.

        Raises:
            UnsupportedError: this kernel does not have it, or not this value.
        """
        try:
            self.namespace.set_sysctl(name, value)
        except KernelError as error:
            raise UnsupportedError(error.message, hint=error.hint) from None

    def _read_counters(self) -> Counters:
        with self.namespace.entered():
            texts = [
                Path("/proc/thread-self/net", name).read_text() for name in ("netstat", "snmp")
            ]
        values: list[tuple[str, int]] = []
        for text in texts:
            lines = [line.split() for line in text.splitlines()]
            # these files come in pairs of lines: names, then numbers
            for names, numbers in zip(lines[::2], lines[1::2], strict=True):
                prefix = "" if names[0] == "TcpExt:" else names[0].rstrip(":")
                values += [
                    (prefix + name, int(number))
                    for name, number in zip(names[1:], numbers[1:], strict=True)
                ]
        return Counters(tuple(values))
