"""The 19 receive steps of the Linux kernel, the hooks of the send side, and grades of evidence."""

from __future__ import annotations

from enum import Enum, StrEnum
from functools import total_ordering


class Evidence(Enum):
    """How a line of a trace is known, best first; ``rank`` 0 is the strongest proof.

    Attributes:
        rank: 0 (probe) to 6 (not-taken); lower proves more.
        means: one clause for a reader.
    """

    PROBE = ("probe", 0, "an fentry or kprobe on the kernel function itself saw this packet")
    TRACEPOINT = ("tracepoint", 1, "a kernel tracepoint in the function reported this packet")
    STACK = ("stack", 2, "the function is on the call stack taken for this packet")
    PROGRAM = ("program", 3, "a program attached to this hook was run on this packet")
    COUNTER = ("counter", 4, "a counter moved that only this packet can have moved")
    IMPLIED = ("implied", 5, "a later step was seen that cannot happen without this one")
    NOT_TAKEN = ("not-taken", 6, "the packet did not take this step, for the reason given")

    def __init__(self, word: str, rank: int, means: str) -> None:
        self.word = word
        self.rank = rank
        self.means = means

    def __str__(self) -> str:
        return self.word

    @property
    def taken(self) -> bool:
        """True for every grade but ``not-taken``."""
        return self is not Evidence.NOT_TAKEN

    @classmethod
    def of(cls, word: str) -> Evidence:
        """Return the grade that ``word`` (as in JSON) names.

        Raises:
            KeyError: no grade has this word.
        """
        return _EVIDENCE[word]


NO_EVIDENCE = "no evidence"
"""How the reason of a step begins that may have been taken: nothing tells."""

_EVIDENCE = {grade.word: grade for grade in Evidence}


# ordered by number, so that `step <= Step.RECEIVE_SKB` reads as the walk does
@total_ordering
class Step(Enum):
    """One of the 19 steps that a received packet takes, numbered as in the classic walk.

    Attributes:
        number: 1 to 19.
        title: what is printed beside the number.
        does: one line for a learner.
        function: the kernel function, as one finds it in a call stack.
    """

    NAPI_POLL = (1, "napi poll", "the driver is asked for its received frames", "__napi_poll")
    XDP_DRIVER = (
        2,
        "XDP in the driver",
        "a program judges the frame before a buffer exists",
        "veth_xdp_rcv_skb",
    )
    CLEAN_RX = (3, "clean_rx", "the driver makes a socket buffer of the frame", "build_skb")
    GRO_RECEIVE = (4, "gro_receive", "segments of one flow are merged into one", "gro_receive_skb")
    RECEIVE_SKB = (
        5,
        "receive_skb",
        "the frame enters the protocol-independent stack",
        "__netif_receive_skb_core",
    )
    GENERIC_XDP = (
        6,
        "generic XDP",
        "XDP for drivers without it, on a finished buffer",
        "do_xdp_generic",
    )
    CHECK_TAPS = (7, "check_taps", "packet sockets (tcpdump) get their copy", "packet_rcv")
    TC_INGRESS = (
        8,
        "tc ingress",
        "the traffic classifier's programs run on the device",
        "tcf_classify",
    )
    NETFILTER_INGRESS = (
        9,
        "netfilter ingress",
        "chains of the netdev family see the frame",
        "nf_hook_ingress",
    )
    IP_RCV = (10, "ip_rcv", "the IP header is checked", "ip_rcv")
    NETFILTER_PREROUTING = (
        11,
        "netfilter prerouting",
        "iptables and nftables see the packet",
        "nf_hook_slow",
    )
    IP_RCV_FINISH = (12, "ip_rcv_finish", "the packet is handed to routing", "ip_rcv_finish_core")
    IP_ROUTING = (
        13,
        "ip_routing",
        "the routing table decides: here, onwards, or nowhere",
        "ip_route_input_noref",
    )
    IP_LOCAL_DELIVER = (
        14,
        "ip_local_deliver",
        "fragments are put together, INPUT chains run",
        "ip_local_deliver_finish",
    )
    XFRM_POLICY = (
        15,
        "xfrm4_policy",
        "IPsec policy for protocols that do not check themselves",
        "__xfrm_policy_check",
    )
    L4_RECEIVE = (
        16,
        "udp_rcv",
        "the transport checks the packet and looks up its socket",
        "udp_rcv",
    )
    XFRM_POLICY_L4 = (
        17,
        "xfrm4_policy again",
        "IPsec policy once the ports are known",
        "__xfrm_policy_check",
    )
    RECEIVE_QUEUE = (
        18,
        "socket_receive_queue",
        "the packet waits in the socket's queue",
        "__udp_enqueue_schedule_skb",
    )
    DATA_READY = (19, "sk_data_ready", "the waiting application is woken", "sock_def_readable")

    def __init__(self, number: int, title: str, does: str, function: str) -> None:
        self.number = number
        self.title = title
        self.does = does
        self.function = function

    def __str__(self) -> str:
        return f"{self.number} {self.title}"

    def __lt__(self, other: Step) -> bool:
        return self.number < other.number

    @classmethod
    def of(cls, number: int) -> Step:
        """Return the step with this number.

        Raises:
            KeyError: the number is not in 1 to 19.
        """
        return _STEPS[number]


_STEPS = {step.number: step for step in Step}


class SendHook(StrEnum):
    """Places that a packet passes on its way out; the ladder of receive steps has none of them."""

    SOCKET = "socket_send"
    ROUTE = "route_output"
    NF_OUTPUT = "nf_output"
    NF_FORWARD = "nf_forward"
    NF_POSTROUTING = "nf_postrouting"
    XFRM_OUT = "xfrm_output"
    CGROUP = "cgroup_egress"
    NEIGHBOUR = "neighbour"
    DEV_QUEUE = "dev_queue"
    TC_EGRESS = "tc_egress"
    DEV_XMIT = "dev_xmit"


class Side(StrEnum):
    """Whether a hop belongs to receiving, sending, or to neither (a free, a probe of one's own)."""

    RECEIVE = "receive"
    SEND = "send"
    OTHER = "other"


class Tie(StrEnum):
    """How a packet comes from another: read "this packet is the ... packet N"."""

    CLONE_OF = "clone of"
    CLONED_AS = "cloned as"
    SEGMENT_OF = "segment of"
    SPLIT_INTO = "split into"
    MERGED_INTO = "merged into"
    MADE_OF = "made of"
    CAUSED_BY = "caused by"
    CAUSES = "causes"
    ANSWER_TO = "answer to"
    ANSWERED_BY = "answered by"

    @property
    def inverse(self) -> Tie:
        """The same relation, told of the other packet."""
        # members stand in pairs: a relation and its inverse
        ties = list(Tie)
        return ties[ties.index(self) ^ 1]
