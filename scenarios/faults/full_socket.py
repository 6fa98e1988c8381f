"""A socket that nobody reads takes packets until its buffer is full; the next one ends at step 18.

client ──► server:5000, whose buffer others have filled: SOCKET_RCVBUFF
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from lab import Lab, scenario
from lab.scenarios.faults import UDP, Ends, lesson
from lab.trace import Step
from lab.waiting import eventually
from topologies.two_nodes import topology

READER = """
import os, signal, socket
os.setsid()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
s.bind(("", 5000))
for _ in range(99):
    s.sendto(b"x", ("127.0.0.1", 5000))
if child := os.fork():
    print(child, flush=True)
    os._exit(0)
os.closerange(0, 3)
signal.pause()
"""
KEY = Ends(
    place="server", hook="socket_queue", step=Step.RECEIVE_QUEUE, reason="SOCKET_RCVBUFF",
    why="the application does not read",
)  # fmt: skip


@contextmanager
def nobody_reads(lab: Lab) -> Iterator[None]:
    """A server that has a socket and never looks into it."""
    child = lab.pod("server").run(["python3", "-c", READER], check=True).stdout
    try:
        yield
    finally:
        lab.pod("server").run(["kill", child.strip()], check=True)
        waiting = ["ss", "-Hnau", "sport", "=", ":5000"]
        eventually(lambda: not lab.pod("server").run(waiting).stdout, within_s=10)


@scenario(topology)
def full_socket(lab: Lab) -> None:
    """With a server that does not read, and with one that does."""
    lesson(lab, nobody_reads(lab), KEY, replace(UDP, listen=False))
