"""Where in the ladder a freed buffer ended, from the kernel function that freed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.trace import SendHook, Side, Step


@dataclass(frozen=True, slots=True)
class Drop:
    """A place in the ladder where the packet ended."""

    step: Step | None
    hook: str


_PEACEFUL = frozenset({"CONSUMED", "NOT_DROPPED_YET"})
_COPIES = frozenset(
    {
        "raw_local_deliver", "packet_rcv", "tpacket_rcv",
        "sk_stream_kill_queues", "inet_sock_destruct", "skb_queue_purge_reason",
        "__skb_queue_purge_reason", "tcp_disconnect", "udp_destruct_common",
    }
)  # fmt: skip
"""These free a copy nobody wanted, or what a closed socket had received: no drop on the way."""
_BY_REASON = {
    "TC_INGRESS": Drop(Step.TC_INGRESS, "tc_ingress"),
    "TC_EGRESS": Drop(None, SendHook.TC_EGRESS.value),
    "SOCKET_RCVBUFF": Drop(Step.RECEIVE_QUEUE, "socket_queue"),
    "SOCKET_FILTER": Drop(Step.RECEIVE_QUEUE, "socket_filter"),
    "BPF_CGROUP_EGRESS": Drop(None, SendHook.CGROUP.value),
    "NEIGH_FAILED": Drop(None, SendHook.NEIGHBOUR.value),
    "NEIGH_QUEUEFULL": Drop(None, SendHook.NEIGHBOUR.value),
    "NEIGH_DEAD": Drop(None, SendHook.NEIGHBOUR.value),
    "QDISC_DROP": Drop(None, "qdisc_enqueue"),
    "QDISC_OVERLIMIT": Drop(None, "qdisc_enqueue"),
    "CPU_BACKLOG": Drop(None, "netif_rx"),
    "XDP": Drop(Step.XDP_DRIVER, "xdp"),
    "IP_RPFILTER": Drop(Step.IP_ROUTING, "ip_routing"),
    "IP_OUTNOROUTES": Drop(None, SendHook.ROUTE.value),
    "IP_INNOROUTES": Drop(Step.IP_ROUTING, "ip_routing"),
    "IP_INADDRERRORS": Drop(Step.IP_ROUTING, "ip_routing"),
    "IP_INVALID_SOURCE": Drop(Step.IP_ROUTING, "ip_routing"),
    "IP_INVALID_DEST": Drop(Step.IP_ROUTING, "ip_routing"),
    "IP_LOCAL_SOURCE": Drop(Step.IP_ROUTING, "ip_routing"),
    "IP_LOCALNET": Drop(Step.IP_ROUTING, "ip_routing"),
    "PKT_TOO_BIG": Drop(None, "ip_fragment"),
}
# asked where the reason names no place of its own: who freed the buffer
_BY_FUNCTION = {
    "veth_xdp_rcv_skb": Drop(Step.XDP_DRIVER, "xdp"),
    "do_xdp_generic": Drop(Step.GENERIC_XDP, "generic_xdp"),
    "ip_rcv_core": Drop(Step.IP_RCV, "ip_rcv"),
    "ip_rcv_finish_core": Drop(Step.IP_RCV_FINISH, "ip_rcv_finish"),
    "ip_error": Drop(Step.IP_ROUTING, "ip_routing"),
    "ip_route_input_slow": Drop(Step.IP_ROUTING, "ip_routing"),
    "ip_forward": Drop(None, "ip_forward"),
    "ip_protocol_deliver_rcu": Drop(Step.IP_LOCAL_DELIVER, "ip_local_deliver"),
    "ip_local_deliver_finish": Drop(Step.IP_LOCAL_DELIVER, "ip_local_deliver"),
    "__udp4_lib_rcv": Drop(Step.L4_RECEIVE, "udp_rcv"),
    "udp_queue_rcv_one_skb": Drop(Step.RECEIVE_QUEUE, "socket_queue"),
    "tcp_v4_rcv": Drop(Step.L4_RECEIVE, "tcp_v4_rcv"),
    "tcp_v4_do_rcv": Drop(Step.L4_RECEIVE, "tcp_v4_rcv"),
    "tcp_rcv_state_process": Drop(Step.L4_RECEIVE, "tcp_v4_rcv"),
    "ping_rcv": Drop(Step.L4_RECEIVE, "icmp_rcv"),
    "icmp_rcv": Drop(Step.L4_RECEIVE, "icmp_rcv"),
    "arp_process": Drop(None, "arp_rcv"),
    "ip_finish_output": Drop(None, SendHook.NF_POSTROUTING.value),
    "vxlan_rcv": Drop(Step.L4_RECEIVE, "udp_rcv"),
    "vxlan_xmit_one": Drop(None, SendHook.DEV_XMIT.value),
    "veth_xmit": Drop(None, SendHook.DEV_XMIT.value),
    "__dev_forward_skb2": Drop(None, SendHook.DEV_XMIT.value),
    "br_forward_finish": Drop(None, "bridge"),
    "xfrm_input": Drop(Step.L4_RECEIVE, "xfrm4_esp_rcv"),
    "xfrm4_rcv_encap_finish": Drop(Step.L4_RECEIVE, "xfrm4_esp_rcv"),
    "xfrm_output": Drop(None, SendHook.XFRM_OUT.value),
    "xfrm_output_resume": Drop(None, SendHook.XFRM_OUT.value),
    "dst_discard_out": Drop(None, SendHook.XFRM_OUT.value),
}
REDIRECTED = "skb_do_redirect"
"""What sends on a packet that a classifier redirected, and frees it if there is no device."""
KEPT = ("__netif_receive_skb_core", "sch_handle_ingress", "__dev_queue_xmit", "sch_handle_egress")
"""Here a buffer ends in peace for one reason only: a classifier said that it is its own now."""
# step 15 checks only protocols without no_policy; UDP, TCP and ICMP check for themselves later
_XFRM = {
    "ip_local_deliver_finish": Drop(Step.XFRM_POLICY, "xfrm_policy"),
    "ip_protocol_deliver_rcu": Drop(Step.XFRM_POLICY, "xfrm_policy"),
}


PLACES = (*_BY_REASON.values(), *_BY_FUNCTION.values(), *_XFRM.values())
"""Where a packet may end, as far as it has a name of its own."""


def classify(location: str, reason: str, *, side: Side, entered: str) -> Drop | None:
    """Return where a packet was dropped; None if its buffer was freed in peace.

    Args:
        location: the kernel function that freed the buffer.
        reason: the kernel's drop reason, without its prefix.
        side: what the packet was doing.
        entered: the netfilter hook entered last, empty if none.
    """
    if reason in _PEACEFUL or location in _COPIES:
        return None
    if reason == "XFRM_POLICY":
        return _XFRM.get(location, Drop(Step.XFRM_POLICY_L4, "xfrm_policy_l4"))
    if reason == "NETFILTER_DROP":
        return _netfilter(side, entered)
    if location == REDIRECTED:
        receiving = side is Side.RECEIVE
        return _BY_REASON["TC_INGRESS" if receiving else "TC_EGRESS"]
    if location == "do_xdp_generic":
        return _BY_FUNCTION[location]  # with the same reason as the driver's
    known = _BY_REASON.get(reason) or _BY_FUNCTION.get(location)
    return known or Drop(None, location or "kfree_skb")


_CHAINS = {
    "ip_rcv": "nf_prerouting",
    "ip_list_rcv": "nf_prerouting",
    "ip_sublist_rcv": "nf_prerouting",
    "ip_local_deliver": "nf_input",
    "ip_forward": SendHook.NF_FORWARD.value,
    "__ip_local_out": SendHook.NF_OUTPUT.value,
    "ip_output": SendHook.NF_POSTROUTING.value,
    "br_handle_frame": "nf_bridge",
    "br_forward_finish": "nf_bridge",
    "__br_forward": "nf_bridge",
    "__netif_receive_skb_core": "nf_ingress",
    "__dev_queue_xmit": "nf_egress",
}
_BOTTOM = ("__netif_receive_skb", "__napi_poll")


def chain_of(stack: Sequence[str]) -> str:
    """Return the netfilter hook whose rules dropped a packet, by who called them; empty if none.

    Args:
        stack: where it was freed, innermost first. What is below the device belongs to others.
    """
    for name in stack:
        if name in _CHAINS:
            return _CHAINS[name]
        if name.startswith(_BOTTOM):
            break
    return ""


def _netfilter(side: Side, entered: str) -> Drop:
    # no hook of IP was entered: only the device's own chain lies before them
    if entered == "nf_ingress" or (side is Side.RECEIVE and not entered):
        return Drop(Step.NETFILTER_INGRESS, "nf_ingress")
    steps = {"nf_prerouting": Step.NETFILTER_PREROUTING, "nf_input": Step.IP_LOCAL_DELIVER}
    return Drop(steps.get(entered), entered or SendHook.NF_OUTPUT.value)
