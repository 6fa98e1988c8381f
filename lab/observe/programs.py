"""Which probe programs exist, what each needs of the kernel, which records it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from lab.observe.grades import loses
from lab.observe.records import Kind


class Where(Enum):
    """How a probe program is put into the kernel."""

    TRACEPOINT = auto()
    FENTRY = auto()
    """Entry of a function, or return from it: the program's section says which."""
    NETFILTER = auto()
    TC_INGRESS = auto()
    TC_EGRESS = auto()
    SOCKET_LOOKUP = auto()
    CGROUP_INGRESS = auto()
    CGROUP_EGRESS = auto()


@dataclass(frozen=True, slots=True)
class Probe:
    """One program of ``bpf/probes/packet.bpf.c``.

    Attributes:
        name: its C function.
        kind: of the records it writes.
        where: how it is attached.
        needs: a name the kernel's BTF must know, else the program is left out.
        gives: what is lost without it, for the reader.
        unless: a name in the kernel's BTF that makes it needless.
        light: also used where every packet counts: what it tells, no other probe does.
        light_unless: a name in the kernel's BTF with which a light trace does without it.
    """

    name: str
    kind: Kind
    where: Where
    needs: str
    gives: str
    unless: str = ""
    light: bool = True
    light_unless: str = ""


def _tracepoint(name: str, kind: Kind, tracepoint: str, gives: str, *, light: bool = True) -> Probe:
    return Probe(name, kind, Where.TRACEPOINT, f"btf_trace_{tracepoint}", gives, light=light)


# the kernel's own sk_buff in a hook program: a kfunc since Linux 6.2
_CAST = "bpf_cast_to_kern_ctx"
# netfilter programs exist since Linux 6.4
_NETFILTER = "bpf_nf_ctx"


def entry(
    name: str, kind: Kind, function: str, gives: str, *, unless: str = "", light: bool = True
) -> Probe:
    """Return a probe at the entry of a kernel function; the rest as of `Probe`."""
    return Probe(name, kind, Where.FENTRY, function, gives, unless=unless, light=light)


def _stand_in(name: str, kind: Kind, function: str, gives: str) -> Probe:
    """Return a probe of a function that calls netfilter, where no program can be called by it."""
    return entry(name, kind, function, gives, unless=_NETFILTER, light=False)


PROBES = (
    _tracepoint(
        "on_napi_poll", Kind.NAPI_POLL, "napi_poll", "which poll a packet came with", light=False
    ),
    _tracepoint("on_gro_receive", Kind.GRO_RECEIVE, "napi_gro_receive_entry", "GRO", light=False),
    _tracepoint(
        "on_gro_result", Kind.GRO_RESULT, "napi_gro_receive_exit", "what GRO did", light=False
    ),
    _tracepoint("on_netif_rx", Kind.NETIF_RX, "netif_rx", "the backlog queue", light=False),
    _tracepoint("on_receive_skb", Kind.RECEIVE_SKB, "netif_receive_skb", "step 5"),
    Probe(
        "on_dev_queue",
        Kind.DEV_QUEUE,
        Where.TRACEPOINT,
        "btf_trace_net_dev_queue",
        "sending through a device",
        # a packet begins at its sender's control group, where the kernel lets that be watched
        light_unless=_CAST,
    ),
    _tracepoint(
        "on_dev_xmit", Kind.DEV_XMIT, "net_dev_start_xmit", "handing to the driver", light=False
    ),
    _tracepoint("on_free", Kind.FREE, "kfree_skb", "drops and their reasons"),
    _tracepoint("on_consume", Kind.CONSUME, "consume_skb", "where a buffer ends in peace"),
    _tracepoint("on_route", Kind.ROUTE, "fib_table_lookup", "routing decisions", light=False),
    _tracepoint("on_data_ready", Kind.DATA_READY, "sk_data_ready", "steps 18 and 19"),
    # Linux 6.1 lacks the tracepoint sk_data_ready
    entry(
        "on_readable",
        Kind.DATA_READY,
        "sock_def_readable",
        "steps 18 and 19",
        unless="btf_trace_sk_data_ready",
    ),
    _tracepoint(
        "on_socket_read",
        Kind.SOCKET_READ,
        "sock_recv_length",
        "the reader's system call",
        light=False,
    ),
    _tracepoint("on_tcp_segment", Kind.TCP_SEGMENT, "tcp_probe", "TCP segments without data"),
    _tracepoint("on_tcp_state", Kind.TCP_STATE, "inet_sock_set_state", "changes of TCP's state"),
    Probe(
        "on_socket_lookup",
        Kind.SOCKET_LOOKUP,
        Where.SOCKET_LOOKUP,
        "bpf_sk_lookup_kern",
        "the look-up of the packet's socket",
        light=False,
    ),
    _tracepoint("on_queue_full", Kind.QUEUE_FULL, "sock_rcvqueue_full", "full receive queues"),
    _tracepoint("on_icmp_send", Kind.ICMP_SEND, "icmp_send", "ICMP errors in answer"),
    _tracepoint("on_tcp_reset", Kind.TCP_RESET, "tcp_send_reset", "TCP resets in answer"),
    _tracepoint("on_qdisc_enqueue", Kind.QDISC_ENQUEUE, "qdisc_enqueue", "queueing"),
    _tracepoint("on_xdp_exception", Kind.XDP_EXCEPTION, "xdp_exception", "aborted XDP programs"),
    _tracepoint("on_xdp_redirect", Kind.XDP_REDIRECT, "xdp_redirect", "XDP redirects"),
    _tracepoint("on_xdp_redirect_err", Kind.XDP_REDIRECT, "xdp_redirect_err", "failed redirects"),
    _tracepoint(
        "on_xdp_devmap_xmit",
        Kind.XDP_TRANSMIT,
        "xdp_devmap_xmit",
        "redirected frames that no device took",
    ),
    _tracepoint("on_xdp_bulk_tx", Kind.XDP_TX, "xdp_bulk_tx", "what XDP sends back"),
    Probe(
        "netfilter_first",
        Kind.NETFILTER_FIRST,
        Where.NETFILTER,
        _NETFILTER,
        "netfilter hooks",
        light=False,
    ),
    Probe(
        "netfilter_last",
        Kind.NETFILTER_LAST,
        Where.NETFILTER,
        _NETFILTER,
        "chain verdicts",
        light=False,
    ),
    _stand_in("on_local_out", Kind.FUNCTION, "__ip_local_out", "where a packet begins"),
    _stand_in("on_ip_rcv", Kind.FUNCTION, "ip_rcv_core", "step 10"),
    _stand_in("on_local_deliver", Kind.FUNCTION, "ip_local_deliver", "step 14"),
    _stand_in("on_chain", Kind.NETFILTER_FIRST, "nf_hook_slow", "netfilter hooks with chains"),
    _stand_in("on_chain_over", Kind.NETFILTER_LAST, "nf_hook_slow", "chain verdicts"),
    _tracepoint(
        "on_neighbour",
        Kind.NEIGHBOUR,
        "neigh_event_send_done",
        "the neighbour that a packet waits for",
        light=False,
    ),
    Probe(
        "cgroup_egress",
        Kind.CGROUP_EGRESS,
        Where.CGROUP_EGRESS,
        _CAST,
        "the control group of the sending socket",
    ),
    Probe(
        "cgroup_ingress",
        Kind.CGROUP_INGRESS,
        Where.CGROUP_INGRESS,
        _CAST,
        "the control group of the receiving socket",
        light=False,
    ),
    Probe("tc_ingress", Kind.TC_INGRESS, Where.TC_INGRESS, _CAST, "tc ingress before programs"),
    Probe("tc_egress", Kind.TC_EGRESS, Where.TC_EGRESS, _CAST, "tc egress before programs"),
)


def usable(
    kernel_knows: Callable[[str], bool], *, light: bool = False, alone: bool = True
) -> tuple[Probe, ...]:
    """Return the probes that a kernel can load; ``kernel_knows`` answers for its BTF.

    Args:
        kernel_knows: whether the kernel's BTF has something of this name.
        light: only the few that a packet's way cannot be told without.
        alone: also those that stand in for netfilter programs by probing functions; another
            witness that probes functions must not be told the same by this one.
    """
    return tuple(
        probe
        for probe in PROBES
        if kernel_knows(probe.needs)
        and not (probe.unless and kernel_knows(probe.unless))
        and (not light or _is_light(probe, kernel_knows))
        and (alone or probe.unless != _NETFILTER)
    )


def _is_light(probe: Probe, kernel_knows: Callable[[str], bool]) -> bool:
    return probe.light and not (probe.light_unless and kernel_knows(probe.light_unless))


def left_out(kernel_knows: Callable[[str], bool]) -> tuple[str, ...]:
    """Return one sentence per probe that a light trace does without on this kernel."""
    return tuple(
        f"{probe.gives}: left out of a light trace; {loses(probe.name)}"
        for probe in usable(kernel_knows)
        if not _is_light(probe, kernel_knows)
    )


def missing(kernel_knows: Callable[[str], bool]) -> tuple[str, ...]:
    """Return one sentence per probe that a kernel cannot load and no other makes up for."""
    given = {probe.kind for probe in usable(kernel_knows)}
    return tuple(
        f"{probe.gives}: this kernel has no {probe.needs.removeprefix('btf_trace_')}; "
        f"{loses(probe.name)}"
        for probe in PROBES
        if not kernel_knows(probe.needs)
        and not (probe.unless and kernel_knows(probe.unless))
        and probe.kind not in given
    )
