"""A network in user space: packets the kernel routes there are read by the program, and back."""

from __future__ import annotations

import os
import select
import socket
import struct
from types import TracebackType

from lab.errors import CheckFailed
from lab.packets.icmp import ECHO_REPLY, echo_request

_ROOM = 65_536


class Tun:
    """The descriptor behind a TUN device: one ``read`` is one IP packet the kernel sent to it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, within_s: float = 5.0) -> bytes:
        """Return the next IP packet, header first.

        Raises:
            CheckFailed: the kernel sent none in time.
        """
        if not select.select([self._fd], [], [], within_s)[0]:
            raise CheckFailed(
                f"no packet came to the TUN device within {within_s:g} s",
                hint="is there a route to it, and does the host forward?",
            )
        return os.read(self._fd, _ROOM)

    def write(self, packet: bytes) -> None:
        """Hand an IP packet to the kernel as if it had arrived at the device."""
        # without IFF_NO_PI four bytes would come first; the device was made with it
        os.write(self._fd, packet)

    def close(self) -> None:
        """Let the device disappear; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Tun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Pinger:
    """A raw ICMP socket of one host: sends requests, waits for their replies."""

    def __init__(self, raw: socket.socket, address: str) -> None:
        self._raw = raw
        self._address = address
        raw.setblocking(False)

    def send(self, sequence: int, payload: bytes) -> None:
        """Send one echo request; the reply is waited for by :meth:`reply`."""
        self._raw.sendto(echo_request(os.getpid() & 0xFFFF, sequence, payload), (self._address, 0))

    def reply(self, within_s: float = 1.0) -> tuple[int, bytes] | None:
        """Return sequence number and payload of the next echo reply, None if none comes."""
        while select.select([self._raw], [], [], within_s)[0]:
            packet = self._raw.recv(_ROOM)
            icmp = packet[(packet[0] & 15) * 4 :]
            # a raw ICMP socket gives the IP header, too, and every ICMP message of the host,
            # requests included
            kind, _, _, _, sequence = struct.unpack_from("!BBHHH", icmp)
            if kind == ECHO_REPLY:
                return sequence, icmp[8:]
        return None
