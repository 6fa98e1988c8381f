"""Which programs and classifiers sit in a device's clsact qdisc, at whatever priority.

Asked of the kernel as ``tc filter show`` does: RTM_GETTFILTER (linux/rtnetlink.h), attributes of
linux/pkt_cls.h.
"""

from __future__ import annotations

import socket
import struct
import sys

from lab.errors import KernelError
from lab.kernel import netlink
from lab.kernel.bpfattach import Direction

_TCMSG = struct.Struct("=BxxxiIII")
_GET_FILTERS, _NEW_FILTER = 46, 44
# TC_H_CLSACT with TC_H_MIN_INGRESS or TC_H_MIN_EGRESS
_PARENTS = {Direction.INGRESS: 0xFFFFFFF2, Direction.EGRESS: 0xFFFFFFF3}
_KIND, _OPTIONS, _BPF_ID = 1, 2, 11
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
    found: list[int] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asked:
            asked.send(netlink.request(_GET_FILTERS, message))
            while True:
                for kind, _, body in netlink.messages(asked.recv(_ANSWER_BYTES)):
                    if kind in netlink.END:
                        return tuple(dict.fromkeys(found))
                    if kind == _NEW_FILTER:
                        found += _program(body[_TCMSG.size :])
    except OSError as error:
        raise KernelError(
            f"asking for the filters of interface {ifindex}: {error.strerror}",
            hint="tc filter show dev DEVICE ingress",
        ) from error


def _program(told: bytes) -> list[int]:
    found = netlink.attributes(told)
    if found.get(_KIND, b"").rstrip(b"\0") != b"bpf":
        return [0]
    # the list of a priority's filters is told too, and has no program of its own
    number = netlink.attributes(found.get(_OPTIONS, b"")).get(_BPF_ID)
    return [int.from_bytes(number, sys.byteorder)] if number else []
