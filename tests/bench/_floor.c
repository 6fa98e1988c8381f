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

/* Into the tunnel, with whatever VNI: the way of every datapath with a VXLAN device for all nodes,
 * which takes the receiver from the packet's metadata. */
SEC("encap") int to_tunnel(struct __sk_buff *ctx)
{
	struct bpf_tunnel_key key = { .tunnel_id = 2, .remote_ipv4 = REMOTE, .tunnel_ttl = 64 };

	bpf_skb_set_tunnel_key(ctx, &key, sizeof(key), BPF_F_ZERO_CSUM_TX);
	return bpf_redirect(TO_IFINDEX, 0);
}

char _license[] SEC("license") = "GPL";
