// SPDX-License-Identifier: GPL-2.0
/* The least that any datapath at a veth's end costs: the way from pod to pod with nothing on it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* To the other pod's veth, through its queue: the way of legacy host routing. */
SEC("veth") int to_veth(struct __sk_buff *ctx)
{
	return bpf_redirect(TO_IFINDEX, 0);
}

/* Straight into the other pod: the way of eBPF host routing. */
SEC("peer") int to_peer(struct __sk_buff *ctx)
{
	return bpf_redirect_peer(TO_IFINDEX, 0);
}

char _license[] SEC("license") = "GPL";
