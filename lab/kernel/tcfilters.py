"""Which programs and classifiers sit in a device's clsact qdisc, at whatever priority.

Asked of the kernel as ``tc filter show`` does: RTM_GETTFILTER (linux/rtnetlink.h), attributes of
linux/pkt_cls.h.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

from lab.errors import KernelError
from lab.kernel.bpfattach import Direction

_HEAD = struct.Struct("=IHHII")
_TCMSG = struct.Struct("=BxxxiIII")
_ATTRIBUTE = struct.Struct("=HH")
_GET_FILTERS, _NEW_FILTER = 46, 44
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
# TC_H_CLSACT with TC_H_MIN_INGRESS or TC_H_MIN_EGRESS
_PARENTS = {Direction.INGRESS: 0xFFFFFFF2, Direction.EGRESS: 0xFFFFFFF3}
_KIND, _OPTIONS, _BPF_ID = 1, 2, 11
_NESTED_MASK = 0x3FFF
_ANSWER_BYTES = 1 << 16


def tc_filters(ifindex: int, direction: Direction) -> tuple[int, ...]:
    """Return the ids of the programs on one side of a device, in the order in which they run.

    A classifier of another kind (u32, flower, ...) counts as 0.

    Everything happens in the network namespace of the calling thread. A device without clsact,
    or without such a device, has none.

    Raises:
        KernelError: the kernel does not answer.
    """
    message = _TCMSG.pack(0, ifindex, 0, _PARENTS[direction], 0)
    head = _HEAD.pack(_HEAD.size + len(message), _GET_FILTERS, _DUMP, 1, 0)
    found: list[int] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asked:
            asked.send(head + message)
            while True:
                for kind, body in _messages(asked.recv(_ANSWER_BYTES)):
                    if kind in (_DONE, _ERROR):
                        return tuple(dict.fromkeys(found))
                    if kind == _NEW_FILTER:
                        found += _program(body[_TCMSG.size :])
    except OSError as error:
        raise KernelError(
            f"asking for the filters of interface {ifindex}: {error.strerror}",
            hint="tc filter show dev DEVICE ingress",
        ) from error


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEAD.size:
        length, kind, *_ = _HEAD.unpack_from(data)
        yield kind, data[_HEAD.size : length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NESTED_MASK] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def _program(attributes: bytes) -> list[int]:
    found = _attributes(attributes)
    if found.get(_KIND, b"").rstrip(b"\0") != b"bpf":
        return [0]
    # the list of a priority's filters is told too, and has no program of its own
    number = _attributes(found.get(_OPTIONS, b"")).get(_BPF_ID)
    return [int.from_bytes(number, sys.byteorder)] if number else []
