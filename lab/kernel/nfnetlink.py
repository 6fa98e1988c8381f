"""What netfilter tells on its own socket: rules that a traced packet met, and tracked connections.

One socket per network namespace, opened inside it and read without waiting. Layouts: enum
nft_trace_attributes in linux/netfilter/nf_tables.h, enum ctattr_type in nfnetlink_conntrack.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag

from lab.errors import KernelError
from lab.kernel import netlink
from lab.kernel.netlink import attributes

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 4 << 20
_GROUP_RULES = 7
"""NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h)."""
_GROUPS = (1, 2, 3, 9)
"""Connections that are new, changed, gone; nftables' trace."""

_CT_NEW, _CT_DELETE, _NFT_TRACE = 0x100, 0x102, 0xA11
_GET_TABLES = 0xA01
_CREATED = 0x400  # NLM_F_CREATE: the entry is new
_FAMILIES = {0: "", 1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat", 5: "stop",
             -1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return"}  # fmt: skip
_TRACE_TYPES = {1: "policy", 2: "return", 3: "rule"}
_TCP_STATES = ("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK",
               "TIME_WAIT", "CLOSE", "SYN_SENT2")  # fmt: skip


class Tracked(IntFlag):
    """``enum ip_conntrack_status``, as far as it tells a reader something."""

    SEEN_REPLY = 1 << 1
    ASSURED = 1 << 2
    CONFIRMED = 1 << 3
    SRC_NAT = 1 << 4
    DST_NAT = 1 << 5
    DYING = 1 << 9


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleMet:
    """One thing that nftables says of a traced packet.

    Attributes:
        number: the same for everything about one buffer in one namespace, used again later.
        family, table, chain: where.
        kind: ``rule``, ``return`` or ``policy`` (the end of a base chain).
        handle: of the rule, 0 for none.
        verdict: in nft's words; ``jump CHAIN`` for a jump.
        packet: network and transport header; empty but for the first word of each chain.
    """

    number: int
    family: str
    table: str
    chain: str
    kind: str
    handle: int
    verdict: str
    packet: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A tracked connection, when it became new, changed or gone.

    Attributes:
        what: ``new``, ``update`` or ``destroy``.
        number: the kernel's id, as ``conntrack -o id`` prints it.
        original, reply: (protocol, source, destination, source port, destination port); for
            ICMP the identifier in place of both ports. Addresses as four bytes.
        state: of TCP, else empty.
        timeout_s: until it is forgotten, 0 if not told.
    """

    what: str
    number: int
    original: tuple[int, bytes, bytes, int, int]
    reply: tuple[int, bytes, bytes, int, int]
    status: Tracked
    state: str
    timeout_s: int


class NetfilterEvents:
    """Reader of one namespace's netfilter events; make it inside that namespace.

    Attributes:
        lost: how often the kernel found the socket's buffer full.

    Raises:
        KernelError: the kernel has no netfilter netlink, or no privilege.
    """

    def __init__(self) -> None:
        self.lost = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            # FORCE passes over net.core.rmem_max, which is too small for a burst of trace messages
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            self._socket.bind((0, 0))
            for group in _GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            raise KernelError(
                f"listening to netfilter: {error.strerror}", hint="see `lab doctor`"
            ) from error

    def take(self) -> list[bytes]:
        """Return the raw messages that came since the last call; never waits."""
        taken: list[bytes] = []
        while True:
            try:
                taken.append(self._socket.recv(1 << 16, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return taken
            except OSError as error:
                # ENOBUFS tells of a loss once; what is still queued can be read after it
                if error.errno != errno.ENOBUFS:
                    return taken
                self.lost += 1

    def close(self) -> None:
        """Listen no longer; idempotent."""
        self._socket.close()


class RuleChanges:
    """Tells that somebody changed the tables, chains or rules of a namespace; make it inside that.

    Raises:
        KernelError: the kernel has no netfilter netlink, or no privilege.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_RULES)
        except OSError as error:
            raise KernelError(
                f"listening to netfilter: {error.strerror}", hint="see `lab doctor`"
            ) from error

    def came(self) -> bool:
        """Whether there was a change since the last call; never waits."""
        came = False
        while True:
            try:
                self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
                came = True
            except BlockingIOError:
                return came
            except OSError:
                came = True  # ENOBUFS: so many changes that some were not told

    def close(self) -> None:
        """Listen no longer; idempotent."""
        self._socket.close()


def tables() -> tuple[tuple[str, str], ...]:
    """Return (family, name) of every nftables table of the calling thread's namespace."""
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            )
            sock.settimeout(1.0)
            sock.send(netlink.request(_GET_TABLES, bytes(4)))
            return tuple(_tables(sock))
        except OSError:
            return ()  # a kernel without nftables has no tables


def _tables(sock: socket.socket) -> Iterator[tuple[str, str]]:
    # a dump comes in several datagrams
    while True:
        for kind, _, body in netlink.messages(sock.recv(1 << 16)):
            if kind in netlink.END:
                return
            yield _FAMILIES.get(body[0], str(body[0])), _text(attributes(body[4:]).get(1, b""))


def parse(data: bytes) -> Iterator[RuleMet | Connection]:
    """Yield what a datagram of :meth:`NetfilterEvents.take` tells; other messages are skipped."""
    for kind, flags, body in netlink.messages(data):
        # each message begins with struct nfgenmsg: family, version, resource
        told = attributes(body[4:])
        if kind == _NFT_TRACE:
            yield _rule(body[0], told)
        elif kind in (_CT_NEW, _CT_DELETE) and body[0] == socket.AF_INET:
            new = "new" if flags & _CREATED else "update"
            yield _connection("destroy" if kind == _CT_DELETE else new, told)


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "big")


def _rule(family: int, told: dict[int, bytes]) -> RuleMet:
    verdict = attributes(told.get(5, b""))
    # the end of a base chain has no verdict of its own: its policy is told in another attribute
    policy = told.get(16)
    code = verdict.get(1) or policy or b""
    number = int.from_bytes(code, "big", signed=True)
    # the upper half of a non-negative verdict carries a queue number or an errno
    word = _VERDICTS.get(number if number < 0 else number & 0xFF, "")
    target = f" {_text(verdict[2])}" if 2 in verdict else ""
    return RuleMet(
        number=_number(told.get(6)),
        family=_FAMILIES.get(family, str(family)),
        table=_text(told.get(1, b"")),
        chain=_text(told.get(2, b"")),
        kind=_TRACE_TYPES.get(_number(told.get(4)), ""),
        handle=_number(told.get(3)),
        verdict=word + target,
        packet=told.get(8, b"") + told.get(9, b""),
    )


def _connection(what: str, told: dict[int, bytes]) -> Connection:
    tcp = attributes(attributes(told.get(4, b"")).get(1, b""))
    state = _number(tcp.get(1)) if 1 in tcp else -1
    return Connection(
        what=what,
        number=_number(told.get(12)),
        original=_tuple(told.get(1, b"")),
        reply=_tuple(told.get(2, b"")),
        status=Tracked(_number(told.get(3)) & _KNOWN_STATUS),
        state=_TCP_STATES[state] if 0 <= state < len(_TCP_STATES) else "",
        timeout_s=_number(told.get(7)),
    )


_KNOWN_STATUS = sum(Tracked)


def _tuple(data: bytes) -> tuple[int, bytes, bytes, int, int]:
    told = attributes(data)
    address, protocol = attributes(told.get(1, b"")), attributes(told.get(2, b""))
    ends = (_number(protocol.get(2)), _number(protocol.get(3)))
    if 4 in protocol:
        ends = (_number(protocol[4]), _number(protocol[4]))
    return (_number(protocol.get(1)), address.get(1, b""), address.get(2, b""), *ends)
