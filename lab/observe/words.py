"""Every word that traces use for a hook or a verdict, so that a misspelt one can be told."""

from __future__ import annotations

from lab.layouts.attach import ATTACH_POINTS
from lab.observe.absent import HOOK_OF_STEP
from lab.observe.drops import PLACES
from lab.observe.walk import TRANSPORT
from lab.trace import SendHook

HOOKS = frozenset(
    {
        *(point.hook.value for point in ATTACH_POINTS),
        *HOOK_OF_STEP.values(),
        *(hook.value for hook in SendHook),
        *(drop.hook for drop in PLACES),
        *(functions[0] for functions in TRANSPORT.values()),
        "arp_rcv", "cgroup_ingress", "gso_segment", "icmp_send", "ip_forward", "ip_fragment",
        "kfree_skb", "netif_rx", "nf_bridge", "nf_egress", "nf_input", "qdisc_enqueue", "read",
        "tcp_send_reset", "xfrm4_esp_rcv", "xfrm_policy_forward",
    }
)  # fmt: skip
"""Beside these a packet may have been freed in any function of the kernel."""

VERDICTS = frozenset(
    {
        "aborted", "accept", "accepted", "consumed", "decrypted", "delivered", "drop", "encrypted",
        "held", "merged", "normal", "pass", "queued", "redirect", "split", "stolen", "tx",
    }
)  # fmt: skip
