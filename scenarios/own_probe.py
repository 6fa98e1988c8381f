"""A bcc program of one's own sees the packet in the pod, and stands in the packet's own ladder.

server/eth0, tc ingress: how far has the packet come? Who routes it takes one off its TTL.
net_dev_queue: in whose process does each device get it? Also: lab trace ... --probe THIS_FILE
"""

from lab import Attach, Lab, Probe, scenario
from lab.trace import Step
from topologies.two_nodes import topology

TEXT = r"""
#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/pkt_cls.h>

struct arrival { u64 ns; u32 ifindex; u8 ttl; };
struct sending { u64 ns; u64 skb; char process[16]; };
BPF_PERF_OUTPUT(time_to_live);
BPF_PERF_OUTPUT(sender);

int look(struct __sk_buff *ctx)
{
    struct arrival event = { .ns = bpf_ktime_get_ns(), .ifindex = ctx->ifindex };
    bpf_skb_load_bytes(ctx, ETH_HLEN + offsetof(struct iphdr, ttl), &event.ttl, 1);
    time_to_live.perf_submit(ctx, &event, sizeof(event));
    return TC_ACT_UNSPEC; /* let the next program decide */
}

int queued(struct bpf_raw_tracepoint_args *ctx)
{
    struct sending event = { .ns = bpf_ktime_get_ns(), .skb = ctx->args[0] };
    bpf_get_current_comm(&event.process, sizeof(event.process));
    sender.perf_submit(ctx, &event, sizeof(event));
    return 0;
}
"""

look = Attach("tc-ingress", "server/eth0", "look")
probe = Probe(TEXT, attach=(look, Attach("tracepoint", "net_dev_queue", "queued")))


@scenario(topology)
def own_probe(lab: Lab) -> None:
    """One datagram, seen by the lab's probes and by ours."""
    with lab.probe(probe):
        trace = lab.follow("client", "server").packets[0]
    seen = [hop for hop in trace.hops if hop.hook == "time_to_live"]
    senders = [dict(hop.values)["process"] for hop in trace.hops if hop.hook == "sender"]
    queued = [hop for hop in trace.hops if hop.hook == "dev_queue"]

    lab.check("the packet arrived", trace.delivered)
    lab.check("our program saw it once, in the pod", [h.namespace for h in seen] == ["server"])
    lab.check("that proves step 8", seen[0].step is Step.TC_INGRESS)
    lab.check("one node took one off its TTL", dict(seen[0].values)["ttl"] == 63)
    after = lab.follow("client", "server").packets[0]
    lab.check("after the block nothing of it is left", Step.TC_INGRESS not in after.steps("server"))
    lab.check("a process is named for every device", len(senders) == len(queued) and all(senders))
