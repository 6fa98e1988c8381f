"""The records that probes and datapath write, as values; layouts as in bpf/probes and bpf/lib."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

COOKIE_BYTES = 16
PACKET_BYTES = 192
STACK_FRAMES = 32
# struct record up to packet[], 104 bytes; struct mind_record with its note, 88
_HEAD = struct.Struct("<8x6Q6IiII4HI")
_MIND = struct.Struct("<QQIIIHH iBBBB 24s24s")
# every header up to TCP's inside a tunnel
LIGHT_PACKET_BYTES = 112
LIGHT_BYTES = _HEAD.size + LIGHT_PACKET_BYTES
"""Length of a record of a trace without stacks."""
RECORD_BYTES = _HEAD.size + PACKET_BYTES + 8 * STACK_FRAMES
MIND_BYTES = _MIND.size


class Kind(IntEnum):
    """What a record is about (``enum record_kind``)."""

    NAPI_POLL = 1
    GRO_RECEIVE = 2
    GRO_RESULT = 3
    NETIF_RX = 4
    RECEIVE_SKB = 5
    DEV_QUEUE = 6
    DEV_XMIT = 7
    FREE = 8
    CONSUME = 9
    ROUTE = 10
    DATA_READY = 11
    QUEUE_FULL = 12
    ICMP_SEND = 13
    XDP_EXCEPTION = 14
    XDP_REDIRECT = 15
    NETFILTER_FIRST = 16
    NETFILTER_LAST = 17
    TC_INGRESS = 18
    TC_EGRESS = 19
    CGROUP_INGRESS = 20
    CGROUP_EGRESS = 21
    TCP_RESET = 22
    FUNCTION = 23
    QDISC_ENQUEUE = 24
    NEIGHBOUR = 25
    SOCKET_READ = 30
    SOCKET_LOOKUP = 31
    TCP_SEGMENT = 32
    TCP_STATE = 33
    XDP_TX = 34
    XDP_TRANSMIT = 35
    FUNCTION_RETURN = 40
    XFRM_OUTPUT = 50
    XFRM_ENCRYPT = 51
    XFRM_INPUT = 52
    XFRM_DECRYPT = 53
    XFRM_DELIVER = 54
    XFRM_CHECK = 55
    XFRM_FAULT = 56
    XFRM_DISCARD = 57


class Config(IntFlag):
    """How the receiving device was set up when the packet came (``enum record_config``)."""

    KNOWN = 1 << 0
    XDP_DRIVER = 1 << 1
    XDP_GENERIC = 1 << 2
    TAPS = 1 << 3
    TC_INGRESS = 1 << 4
    NF_INGRESS = 1 << 5
    NF_PREROUTING = 1 << 6
    NF_INPUT = 1 << 7
    XFRM_POLICY_IN = 1 << 8
    RX_HANDLER = 1 << 9
    REDIRECTED = 1 << 10


class Link(IntEnum):
    """What the packet bytes of a record begin with (``enum record_link``)."""

    NONE = 0
    ETHERNET = 1
    IP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One event of one probe; see ``struct record`` for the meaning of each field.

    Attributes:
        program: name of the probe's C function, known to the collector by kind.
    """

    ns: int
    skb: int
    head: int
    cookie: int
    location: int
    arg: int
    netns: int
    ifindex: int
    length: int
    mark: int
    hash: int
    reason: int
    verdict: int
    cpu: int
    config: Config
    kind: Kind
    link: Link
    packet: bytes
    stack: tuple[int, ...]
    state: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MindRecord:
    """One note of a datapath program about its own thinking (``struct mind_record``).

    Attributes:
        node: whose datapath it is.
        netns: inode of the node's namespace.
    """

    ns: int
    skb: int
    hash: int
    ifindex: int
    mark: int
    endpoint: int
    arg: int
    kind: int
    what: int
    found: bool
    file: int
    key: bytes
    value: bytes
    netns: int = 0


def parse_record(data: bytes) -> Record:
    """Return the record in ``data``.

    Raises:
        struct.error: ``data`` is shorter than a record.
        ValueError: a kind of which this program knows nothing.
    """
    (
        ns, skb, head, cookie, location, arg, netns, ifindex, length, mark, hashed, reason,
        verdict, cpu, config, kind, captured, stack_bytes, link, state,
    ) = _HEAD.unpack_from(data)  # fmt: skip
    frames = stack_bytes // 8
    return Record(
        ns=ns,
        skb=skb,
        head=head,
        cookie=cookie,
        location=location,
        arg=arg,
        netns=netns,
        ifindex=ifindex,
        length=length,
        mark=mark,
        hash=hashed,
        reason=reason,
        verdict=verdict,
        cpu=cpu,
        config=Config(config),
        kind=Kind(kind),
        link=Link(link),
        packet=data[_HEAD.size : _HEAD.size + captured],
        stack=struct.unpack_from(f"<{frames}Q", data, _HEAD.size + PACKET_BYTES) if frames else (),
        state=state,
    )


def parse_mind(data: bytes, netns: int) -> MindRecord:
    """Return the note in ``data``, written by the datapath of the node with this namespace.

    Raises:
        struct.error: ``data`` is shorter than a note.
    """
    ns, skb, hashed, ifindex, mark, endpoint, _, arg, kind, what, found, file, key, value = (
        _MIND.unpack_from(data)
    )
    return MindRecord(
        ns=ns,
        skb=skb,
        hash=hashed,
        ifindex=ifindex,
        mark=mark,
        endpoint=endpoint,
        arg=arg,
        kind=kind,
        what=what,
        found=bool(found),
        file=file,
        key=key,
        value=value,
        netns=netns,
    )
