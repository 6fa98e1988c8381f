"""The process that a pod's containers are: it serves their ports until the lab, or the pod, goes.

Started by the keeper inside the pod, one process per pod. Unlike a worker it outlives its caller:
it says that it is ready, and from then on only a signal or the lab's end stops it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from lab.runtime.messages import send

if TYPE_CHECKING:
    from lab.runtime.keeper import Context

LOGS = Path("/run/containers")
"""Where the output of started commands is kept, in the lab's private ``/run``."""

_MAX_REQUEST = 65536
_IPPROTO_SCTP = 132
_ANSWER_S = 2.0
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def serve(connection: socket.socket, context: Context) -> None:
    """Listen on every port, start every command, say so, and stay.

    Arguments of the context: ``pod`` (name), ``listeners`` (protocol, port, mode, body),
    ``commands`` (lists of words) and ``names`` (DNS name -> addresses).
    The answer holds ``pid`` and ``problems``, one line per port or command that did not start.
    """
    # commands that end leave no zombies: nobody here waits for them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = _Server(context.arguments["pod"], context.arguments.get("names", {}))
    problems = [
        problem
        for listener in context.arguments["listeners"]
        if (problem := server.listen(**listener))
    ]
    problems += [
        problem
        for command in context.arguments.get("commands", ())
        if (problem := _start(context.arguments["pod"], command))
    ]
    send(connection, {"ready": True, "pid": os.getpid(), "problems": problems})
    connection.close()
    server.run()


def _start(pod: str, command: list[str]) -> str:
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            LOGS.mkdir(exist_ok=True)
            path = LOGS / f"{pod.replace('/', '.')}.log"
            # at its end: the containers of a pod share it
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            # what is ignored stays so over exec, and the command has children and pipes of its own
            for number in (signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.execvp(command[0], command)
        except OSError as error:
            os.write(writer, (error.strerror or "failed").encode())
        finally:
            os._exit(127)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        # exec closes the other end: nothing to read means that the command runs
        problem = pipe.read()
    return f"command {command[0]!r}: {problem}" if problem else ""


class _Server:
    """All sockets of a pod in one loop."""

    def __init__(self, pod: str, names: dict[str, list[str]]) -> None:
        self.pod = pod
        self.names = names
        self.selector = selectors.DefaultSelector()

    def listen(self, protocol: str, port: int, mode: str, body: str) -> str:
        """Open one port; return what went wrong, or nothing."""
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        number = _IPPROTO_SCTP if protocol == "sctp" else 0
        try:
            sock = socket.socket(socket.AF_INET, kind, number)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", port))
            if protocol != "udp":
                sock.listen(512)
        except OSError as error:
            return f"port {port}/{protocol}: {error.strerror}"
        sock.setblocking(False)
        text = body.replace("{pod}", self.pod.rpartition("/")[2]).encode()
        answer: Callable[[bytes, tuple[str, int]], bytes] = {
            "http": lambda data, peer: self._http(data, peer, text),
            "dns": lambda data, _: _dns(data, self.names),
        }.get(mode, lambda data, _: data)
        handler = self._datagram if protocol == "udp" else self._accept
        self.selector.register(sock, selectors.EVENT_READ, (handler, answer, mode))
        return ""

    def run(self) -> None:
        """Answer for ever."""
        while True:
            for key, _ in self.selector.select():
                handler, answer, mode = key.data
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(OSError):
                    handler(key.fileobj, answer, mode)

    def _accept(self, listener: socket.socket, answer: object, mode: str) -> None:
        client, _ = listener.accept()
        # an answer may find the send buffer full: it waits for its reader, and others with it
        client.settimeout(_ANSWER_S)
        self.selector.register(client, selectors.EVENT_READ, (self._stream, answer, mode))

    def _datagram(
        self, sock: socket.socket, answer: Callable[[bytes, tuple[str, int]], bytes], mode: str
    ) -> None:
        data, peer = sock.recvfrom(_MAX_REQUEST)
        sock.sendto(answer(data, peer), peer)

    def _stream(
        self, sock: socket.socket, answer: Callable[[bytes, tuple[str, int]], bytes], mode: str
    ) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = sock.recv(_MAX_REQUEST)
            if data and mode == "dns":
                # DNS over TCP has two bytes of length in front (RFC 1035, 4.2.2)
                reply = answer(data[2:], sock.getpeername())
                sock.sendall(struct.pack("!H", len(reply)) + reply)
            elif data:
                sock.sendall(answer(data, sock.getpeername()))
        # one request per connection for HTTP, as `Connection: close` says
        if not data or mode == "http":
            self.selector.unregister(sock)
            sock.close()

    def _http(self, data: bytes, peer: tuple[str, int], body: bytes) -> bytes:
        words = data.split(b" ", 2)
        if len(words) < 3 or words[0] not in (b"GET", b"HEAD", b"POST", b"PUT"):
            return data  # no HTTP: a probe that wants its bytes back
        try:
            url = urlsplit(words[1].decode("latin-1"))
        except ValueError:
            return _BAD_REQUEST
        content = {
            "/hostname": self.pod.rpartition("/")[2].encode(),
            "/clientip": f"{peer[0]}:{peer[1]}".encode(),
            "/healthz": b"OK",
            "/echo": parse_qs(url.query).get("msg", [""])[0].encode(),
        }.get(url.path, body)
        head = (
            f"HTTP/1.1 200 OK\r\nServer: lab\r\nContent-Length: {len(content)}\r\n"
            "Content-Type: text/plain\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if words[0] == b"HEAD" else content)


def _dns(query: bytes, names: dict[str, list[str]]) -> bytes:
    """Answer an A query from a table (RFC 1035); unknown names do not exist."""
    # 12 bytes of header, an empty name, type and class; 1: the question is malformed
    if len(query) < 17:
        return query[:2] + struct.pack("!HHHHH", 0x8181, 0, 0, 0, 0)
    labels, place = [], 12
    while place < len(query) and query[place]:
        labels.append(query[place + 1 : place + 1 + query[place]].decode("latin-1").lower())
        place += query[place] + 1
    end = place + 5
    kind = struct.unpack("!H", query[place + 1 : place + 3])[0] if end <= len(query) else 0
    addresses = names.get(".".join(labels))
    found = addresses if addresses and kind == 1 else []
    # an authoritative answer with recursion desired and available; 3: no such name
    code = 0x8580 if addresses is not None else 0x8583
    head = query[:2] + struct.pack("!HHHHH", code, 1, len(found), 0, 0)
    # 0xC00C points at byte 12: the name is the question's
    answers = b"".join(
        struct.pack("!HHHIH", 0xC00C, 1, 1, 30, 4) + socket.inet_aton(address) for address in found
    )
    return head + query[12:end] + answers


def arguments(
    pod: str,
    listeners: tuple[Any, ...],
    commands: tuple[tuple[str, ...], ...],
    names: dict[str, list[str]],
) -> dict[str, Any]:
    """Return the arguments that :func:`serve` expects, from :class:`lab.k8s.servers.Listener`."""
    return {
        "pod": pod,
        "listeners": [
            {"protocol": item.protocol, "port": item.port, "mode": item.mode, "body": item.body}
            for item in listeners
        ],
        "commands": [list(command) for command in commands],
        "names": names,
    }
