"""Many probes at once: which of these ports answer, refuse, or keep silent?

A refusal is an answer: the packet arrived and nobody listened there. Silence until the deadline
is what a dropped packet looks like.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.packets.icmp import ECHO_REPLY, echo_request

OPEN, REFUSED, SILENT, FAILED = "open", "refused", "silent", "failed"

_UNLIMITED = {
    "icmp_ratelimit": "0",
    "icmp_msgs_per_sec": "100000",
    "icmp_msgs_burst": "100000",
}
_SCTP = 132
_ETH_P_IP = 0x0800
_PROTOCOL_UNREACHABLE = 2


@dataclass(slots=True)
class _Probe:
    number: int
    protocol: str
    address: str
    port: int


def probe_many(targets: list[list[Any]], timeout_s: float = 0.5) -> dict[str, Any]:
    """Probe every target at once and wait for all answers, or for the deadline.

    Args:
        targets: ``[protocol, address, port]`` with protocol ``tcp``, ``udp``, ``sctp``, ``icmp``.
        timeout_s: how long silence is silence, counted from the last probe sent.

    Returns:
        ``answers``: one word per target: ``open``, ``refused``, ``silent`` or ``failed``.
    """
    return {
        "answers": _Prober([_Probe(n, *target) for n, target in enumerate(targets)]).run(timeout_s)
    }


def answer_refusals() -> dict[str, Any]:
    """Let this network namespace answer every refused packet, however many come.

    By default Linux sends one ICMP error per second and peer, so that a table of closed ports
    would look like one of dropped packets. Affects this namespace only.
    """
    written = []
    for name, value in _UNLIMITED.items():
        path = Path("/proc/sys/net/ipv4", name)
        if path.exists():
            path.write_text(value)
            written.append(name)
    return {"written": written}


class _Prober:
    """Sockets of all probes in one loop."""

    def __init__(self, probes: list[_Probe]) -> None:
        self.probes = probes
        self.answers = [SILENT] * len(probes)
        self.selector = selectors.DefaultSelector()
        self.missing = 0
        self.raw: dict[str, socket.socket] = {}
        self.senders: list[socket.socket] = []
        self.expected: dict[tuple[str, str, int], int] = {}

    def run(self, timeout_s: float) -> list[str]:
        """Send everything, collect until nothing is missing or the time is over."""
        try:
            for probe in self.probes:
                try:
                    self._send(probe)
                except OSError as error:
                    self._settle(probe.number, _word(error))
            deadline = time.monotonic() + timeout_s
            while self.missing > 0 and (left := deadline - time.monotonic()) > 0:
                for key, _ in self.selector.select(left):
                    assert isinstance(key.fileobj, socket.socket)
                    key.data[0](key.fileobj, key.data[1])
        finally:
            # a probe that is still silent is closed here; nobody waits for its answer
            for key in list(self.selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
            for sock in self.senders:
                sock.close()
            self.selector.close()
        return self.answers

    # counted before it is sent: an error at once is an answer, too
    def _send(self, probe: _Probe) -> None:
        self.missing += 1
        if probe.protocol == "tcp":
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            # an open connection must not linger: thousands of them are made
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # registered before the connection begins: an answer in between is not lost
            self.selector.register(sock, selectors.EVENT_WRITE, (self._connected, probe))
            code = sock.connect_ex((probe.address, probe.port))
            if code not in (0, errno.EINPROGRESS):
                self._finish(sock, probe, _word(OSError(code, "")))
        elif probe.protocol == "udp":
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ, (self._datagram, probe))
            # connected, so that an ICMP "port unreachable" comes back as an error of this socket
            sock.connect((probe.address, probe.port))
            sock.send(b"probe")
        else:
            self._send_raw(probe)

    def _send_raw(self, probe: _Probe) -> None:
        sctp = probe.protocol == "sctp"
        if probe.protocol not in self.raw:
            self._listen_raw(sctp)
        self.expected[probe.protocol, probe.address, probe.port if sctp else 0] = probe.number
        if sctp:
            message = _init(probe.port)
            message = _ip_header(probe.address, len(message)) + message
        else:
            message = echo_request(os.getpid() & 0xFFFF, 1)
        self.raw[probe.protocol].sendto(message, (probe.address, 0))

    def _listen_raw(self, sctp: bool) -> None:
        # without SCTP in the kernel the answer is an ICMP "protocol unreachable"
        if "icmp" not in self.raw:
            self.raw["icmp"] = self._receiver(
                socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            )
        if sctp:
            # a raw socket of protocol 132 would swallow what others send here, unanswered:
            # send on one of no protocol, and look at arriving packets from beside the stack
            self.raw["sctp"] = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self.senders.append(self.raw["sctp"])
            self._receiver(
                socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
            )

    def _receiver(self, sock: socket.socket) -> socket.socket:
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, (self._raw_answer, None))
        return sock

    def _connected(self, sock: socket.socket, probe: _Probe) -> None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._finish(sock, probe, _word(OSError(code, "")) if code else OPEN)

    def _datagram(self, sock: socket.socket, probe: _Probe) -> None:
        try:
            sock.recv(2048)
        except OSError as error:
            self._finish(sock, probe, _word(error))
        else:
            self._finish(sock, probe, OPEN)

    def _finish(self, sock: socket.socket, probe: _Probe, word: str) -> None:
        self.selector.unregister(sock)
        sock.close()
        self._settle(probe.number, word)

    def _settle(self, number: int, word: str) -> None:
        # the first answer counts: a duplicate, or an error after it, changes nothing
        if self.answers[number] == SILENT:
            self.answers[number] = word
            self.missing -= 1

    def _raw_answer(self, sock: socket.socket, _: object) -> None:
        packet = sock.recv(2048)
        sender = socket.inet_ntoa(packet[12:16])
        body = packet[(packet[0] & 15) * 4 :]
        if packet[9] == _SCTP and len(body) >= 13:
            # INIT ACK (2): somebody listens; ABORT (6): nobody does
            found = self.expected.get(("sctp", sender, struct.unpack("!H", body[:2])[0]))
            if found is not None:
                self._settle(found, OPEN if body[12] == 2 else REFUSED)
        elif packet[9] == 1 and body[0] == ECHO_REPLY:
            if struct.unpack("!H", body[4:6])[0] == os.getpid() & 0xFFFF:
                found = self.expected.get(("icmp", sender, 0))
                if found is not None:
                    self._settle(found, OPEN)
        elif packet[9] == 1 and body[0] == 3 and body[1] == _PROTOCOL_UNREACHABLE:
            self._unreachable(body[8:])

    def _unreachable(self, inner: bytes) -> None:
        if len(inner) < 24 or inner[9] != _SCTP:
            return
        target = socket.inet_ntoa(inner[16:20])
        port = struct.unpack("!H", inner[(inner[0] & 15) * 4 + 2 :][:2])[0]
        found = self.expected.get(("sctp", target, port))
        if found is not None:
            self._settle(found, REFUSED)


def _word(error: OSError) -> str:
    return REFUSED if error.errno == errno.ECONNREFUSED else FAILED


def _ip_header(address: str, size: int) -> bytes:
    """An IPv4 header whose source, identification and checksum the kernel fills in."""
    fixed = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, _SCTP, 0)
    return fixed + bytes(4) + socket.inet_aton(address)


def _init(port: int) -> bytes:
    """An SCTP INIT without options (RFC 9260); the checksum is CRC32c over all of it."""
    source = 40000 + os.getpid() % 20000
    # "LAB!" is the initiate tag, which must not be 0; a window of 64 KiB, one stream each way
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x4C414221, 65536, 1, 1, 1)
    packet = struct.pack("!HHII", source, port, 0, 0) + chunk
    return packet[:8] + struct.pack("<I", _crc32c(packet)) + packet[12:]


# bit by bit with Castagnoli's reversed polynomial (RFC 9260, appendix A): packets are short
def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF
