"""What a worker inside a pod can do; arguments and results are JSON-ready, bytes are hex."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Literal

from lab.packets.icmp import ECHO_REPLY, ECHO_REQUEST, echo_request
from lab.traffic.flows import FLOW_OPERATIONS
from lab.traffic.measure import MEASUREMENTS
from lab.traffic.probes import answer_refusals, probe_many

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20  # linux/socket.h, linux/if_packet.h


def _errno(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    return errno.errorcode.get(error.errno or 0, str(error))


def _microseconds(since_ns: int) -> float:
    return (time.monotonic_ns() - since_ns) / 1000


def tcp_connect(
    address: str,
    port: int,
    payload: str = "",
    timeout_s: float = 2.0,
    source_port: int = 0,
) -> dict[str, Any]:
    """Connect, send the payload, read until the other side closes or echoes as much."""
    data, reply, connect_us, local = bytes.fromhex(payload), b"", 0.0, 0
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        begun = time.monotonic_ns()
        try:
            # a chosen source port may still be in TIME_WAIT from the connection before
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", source_port))
            local = sock.getsockname()[1]
            sock.connect((address, port))
            connect_us = _microseconds(begun)
            sock.sendall(data)
            while len(reply) < len(data):
                if not (chunk := sock.recv(65536)):
                    break
                reply += chunk
        except OSError as error:
            return _connection(error=_errno(error), connect_us=connect_us, local=local)
    ok = len(reply) >= len(data)
    return _connection(ok=ok, connect_us=connect_us, reply=reply, local=local)


def _connection(
    ok: bool = False, error: str = "", connect_us: float = 0.0, reply: bytes = b"", local: int = 0
) -> dict[str, Any]:
    return {
        "ok": ok,
        "error": error,
        "connect_us": connect_us,
        "reply": reply.hex(),
        "local_port": local,
    }


def udp_send(
    address: str,
    port: int,
    payload: str,
    timeout_s: float = 2.0,
    source_port: int = 0,
    want_reply: bool = True,
) -> dict[str, Any]:
    """Send one datagram on a connected socket and wait for one back."""
    reply, error, rtt_us, local = b"", "", 0.0, 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.bind(("", source_port))
            local = sock.getsockname()[1]
            begun = time.monotonic_ns()
            sock.connect((address, port))
            sock.send(bytes.fromhex(payload))
            if want_reply:
                reply = sock.recv(65536)
                rtt_us = _microseconds(begun)
        except OSError as problem:
            error = _errno(problem)
    ok = not error
    return {"ok": ok, "error": error, "rtt_us": rtt_us, "reply": reply.hex(), "local_port": local}


def ping(
    address: str, count: int = 1, payload: str = "", timeout_s: float = 1.0, ttl: int = 64
) -> dict[str, Any]:
    """Send ICMP echo requests one after the other, each waiting for its reply or error."""
    # raw sockets get everybody's echo replies: identifier and sequence tell ours
    identifier = os.getpid() & 0xFFFF
    rtt_us: list[float] = []
    errors: list[tuple[int, int, str]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        for sequence in range(1, count + 1):
            request = echo_request(identifier, sequence, bytes.fromhex(payload))
            begun = time.monotonic_ns()
            try:
                sock.sendto(request, (address, 0))
            except OSError as error:
                errors.append((-1, error.errno or 0, _errno(error)))
                continue
            answer = _await_echo(sock, identifier, sequence, begun + int(timeout_s * 1e9))
            if answer is True:
                rtt_us.append(_microseconds(begun))
            elif answer:
                errors.append(answer)
    return {"sent": count, "rtt_us": rtt_us, "errors": errors}


def _await_echo(
    sock: socket.socket, identifier: int, sequence: int, deadline_ns: int
) -> Literal[True] | tuple[int, int, str] | None:
    while (left := deadline_ns - time.monotonic_ns()) > 0:
        if not select.select([sock], [], [], left / 1e9)[0]:
            return None
        packet, (sender, _) = sock.recvfrom(65536)
        # a raw socket of IPv4 delivers the IP header too; its length is in words of four bytes
        message = packet[(packet[0] & 15) * 4 :]
        kind, code, _, theirs, number = struct.unpack("!BBHHH", message[:8])
        if kind == ECHO_REPLY and (theirs, number) == (identifier, sequence):
            return True
        # an ICMP error quotes the packet it is about: header and eight bytes at least (RFC 792)
        if kind not in (ECHO_REPLY, ECHO_REQUEST) and _quotes(message[8:], identifier, sequence):
            return kind, code, sender
    return None


def _quotes(packet: bytes, identifier: int, sequence: int) -> bool:
    if len(packet) < 28:
        return False
    inner = packet[(packet[0] & 15) * 4 :]
    return len(inner) >= 8 and struct.unpack("!HH", inner[4:8]) == (identifier, sequence)


def inject(
    frame: str, device: str = "eth0", await_reply_s: float = 0.0, past_egress: bool = False
) -> dict[str, Any]:
    """Put a whole frame on a device; optionally return the frames that arrive within a time.

    With ``past_egress`` neither queue nor programs of the device's own egress see it.
    """
    frames: list[str] = []
    # 3 is ETH_P_ALL: also what leaves, which is sorted out below
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, int(past_egress))
        sock.bind((device, 0))
        # between opening and binding the socket hears every device
        while select.select([sock], [], [], 0)[0]:
            sock.recv(65536)
        try:
            sock.send(bytes.fromhex(frame))
        except OSError as problem:  # dropped on its way out: what followed it says where
            return {"frames": frames, "error": _errno(problem)}
        deadline = time.monotonic() + await_reply_s
        while (left := deadline - time.monotonic()) > 0 and not frames:
            if select.select([sock], [], [], left)[0]:
                data, sender = sock.recvfrom(65536)
                if sender[2] != socket.PACKET_OUTGOING:
                    frames.append(data.hex())
    return {"frames": frames, "error": ""}


def source_of(address: str) -> dict[str, Any]:
    """Say which address this place sends from to a destination; empty without a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # connecting a UDP socket looks up the route and sends nothing; 9 is the discard port
            sock.connect((address, 9))
        except OSError:
            return {"address": ""}
        return {"address": sock.getsockname()[0]}


def run(argv: list[str], stdin: str = "", timeout_s: float = 60.0) -> dict[str, Any]:
    """Run a command to its end."""
    from lab.kernel.process import run as run_process

    done = run_process(argv, input_text=stdin, timeout_s=timeout_s, check=False)
    return {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "tcp_connect": tcp_connect,
    "udp_send": udp_send,
    "ping": ping,
    "inject": inject,
    "source_of": source_of,
    "run": run,
    **FLOW_OPERATIONS,
    **MEASUREMENTS,
    "probe_many": probe_many,
    "answer_refusals": answer_refusals,
}
