"""A process inside a pod: it was born in the pod's namespaces and control group.

It answers calls until its caller closes the connection.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any

from lab.errors import InputError, KernelError, LabError
from lab.runtime.messages import error_message, receive, send
from lab.traffic.measure import mirror
from lab.traffic.operations import OPERATIONS

if TYPE_CHECKING:
    from lab.runtime.keeper import Context

IP_PKTINFO = 8
"""Not in Python's socket module; from ``linux/in.h``."""


def serve(connection: socket.socket, context: Context) -> None:
    """Answer calls, or be a server if the arguments say so.

    Raises:
        Closed: the caller is gone; the keeper ends the process.
    """
    if "server" in context.arguments:
        _be_server(connection, **context.arguments["server"])
        return
    if "mirror" in context.arguments:
        mirror(connection, **context.arguments["mirror"])
        return
    send(connection, {"ready": True})
    while True:
        request, _ = receive(connection)
        try:
            operation = OPERATIONS.get(request["call"])
            if operation is None:
                raise InputError(f"unknown operation {request['call']!r}", hint="see lab.traffic")
            send(connection, {"result": operation(**request["arguments"])})
        except LabError as error:
            send(connection, error_message(error))
        except OSError as error:
            # of one call, a device that is not there, say: the sessions of others go on
            refused = KernelError(f"{request['call']}: {error}", hint="see `man errno`")
            send(connection, error_message(refused))


def _be_server(connection: socket.socket, protocol: str, port: int, reply: str) -> None:
    """Listen, say so, and answer until the caller goes; counts what came."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    listener = socket.socket(socket.AF_INET, kind)
    # a server that ended a moment ago leaves connections in TIME_WAIT: its port is free anyway
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if protocol == "udp":
        listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    try:
        listener.bind(("", port))
    except OSError as error:
        taken = InputError(f"port {port}/{protocol}: {error.strerror}", hint="choose another")
        send(connection, error_message(taken))
        return
    if protocol == "tcp":
        listener.listen(128)
    send(connection, {"ready": True, "port": listener.getsockname()[1]})
    server = _Server(listener, protocol, reply)
    while True:
        readable, _, _ = select.select([connection, *server.sockets], [], [])
        for sock in readable:
            if sock is connection:
                receive(connection)
                send(connection, {"result": server.report()})
            else:
                server.handle(sock)


class _Server:
    """Echoes (or names itself), and remembers who came."""

    def __init__(self, listener: socket.socket, protocol: str, reply: str) -> None:
        self.listener = listener
        self.protocol = protocol
        self.reply = bytes.fromhex(reply)
        self.sockets = [listener]
        self.received = 0
        self.bytes = 0
        self.peers: list[tuple[str, int]] = []

    def handle(self, sock: socket.socket) -> None:
        if sock is not self.listener:
            self._echo(sock)
        elif self.protocol == "udp":
            data, ancillary, _, peer = sock.recvmsg(65536, 128)
            self._count(len(data), peer)
            # Answer from the address that was asked: a node has several (in_pktinfo, ip(7)).
            answer_from = [
                # in_pktinfo: interface, the address that was asked, the header's; no interface on
                # the way out
                (level, kind, bytes(4) + info[4:8] + bytes(4))
                for level, kind, info in ancillary
            ]
            sock.sendmsg([self.reply or data], answer_from, 0, peer)
        else:
            client, peer = sock.accept()
            self._count(0, peer)
            self.sockets.append(client)

    def _echo(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1 << 20)
            self.bytes += len(data)
            if data:
                sock.sendall(self.reply or data)
                return
        except ConnectionError:
            pass
        self.sockets.remove(sock)
        sock.close()

    def _count(self, size: int, peer: tuple[str, int]) -> None:
        self.received += 1
        self.bytes += size
        if len(self.peers) < 1000:
            self.peers.append(peer)

    def report(self) -> dict[str, Any]:
        return {"received": self.received, "bytes": self.bytes, "peers": self.peers}
