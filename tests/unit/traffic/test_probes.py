"""Probes tell an open port, a closed one, and silence."""

import socket

import pytest

from lab.traffic.probes import _crc32c, probe_many


@pytest.fixture
def ports():
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as closed:
        stream.bind(("127.0.0.1", 0))
        stream.listen()
        closed.bind(("127.0.0.1", 0))
        number = closed.getsockname()[1]
        closed.close()
        yield stream.getsockname()[1], number


def test_open_refused_and_silent(ports):
    listening, nobody = ports
    with socket.socket(type=socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        targets = [
            ["tcp", "127.0.0.1", listening],
            ["tcp", "127.0.0.1", nobody],
            ["udp", "127.0.0.1", nobody],
            ["udp", "127.0.0.1", mute.getsockname()[1]],
        ]
        answers = probe_many(targets, timeout_s=0.2)["answers"]
    assert answers == ["open", "refused", "refused", "silent"]


def test_many_at_once(ports):
    answers = probe_many([["tcp", "127.0.0.1", ports[0]]] * 100, timeout_s=2.0)["answers"]
    assert answers == ["open"] * 100


def test_checksum_of_sctp():
    """RFC 3720 appendix B.4: thirty-two zero bytes."""
    assert _crc32c(bytes(32)) == 0x8A9136AA
