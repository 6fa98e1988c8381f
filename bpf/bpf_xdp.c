// SPDX-License-Identifier: GPL-2.0
/*
 * The uplink's first hook: before the kernel has even made a packet of the frame.
 *
 *   from-netdev (XDP) ─► drop, or on to the stack and so to from-netdev (tc)
 */
#define THIS_FILE FILE_BPF_XDP

#include "lib/common.h"
#include "lib/config.h"
#include "lib/drop_reasons.h"
#include "lib/metrics.h"
#include "lib/prefilter.h"

/* Source of an IPv4 frame; 0 when it is none, or cut short. */
static __always_inline __be32 xdp_source4(const struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	const struct ethhdr *eth = data;
	const struct iphdr *ip4 = data + sizeof(*eth);

	if ((void *)(ip4 + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	return ip4->saddr;
}

/* XDP of the uplink. */
SEC("from-netdev") int cil_xdp_entry(struct xdp_md *ctx)
{
	__be32 saddr;

	/* 1. Without a prefilter everything passes. */
	if (!enable_prefilter)
		return XDP_PASS;

	/* 2. What is not IPv4, or too short to tell, is for the stack to judge. */
	saddr = xdp_source4(ctx);
	if (!saddr || !prefilter_denies(saddr))
		return XDP_PASS;

	/* 3. Counted, and nothing more: the point of this hook is to be cheap. */
	metrics_count(ctx->data_end - ctx->data, (__u8)-DROP_POLICY_DENY, METRIC_INGRESS);
	return XDP_DROP;
}
