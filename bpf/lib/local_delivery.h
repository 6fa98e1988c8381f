/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Delivery to a pod of this node: one router hop, then the pod's own policy program, entered by
 * tail call on the hook of whoever delivers (its argument is skb->cb[], see enum cb_slot).
 */
#pragma once

#include "common.h"
#include "config.h"
#include "drop_reasons.h"
#include "eps.h"
#include "ipv4.h"
#include "metrics.h"
#include "mind.h"

/* Written by the loader, one handle_policy per endpoint at slot = endpoint id; read by tail calls
 * of every program that delivers. Capacity: every endpoint id. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} cilium_call_policy SEC(".maps");

struct delivery {
	__u32 src_label;
	__u32 flags; /* enum delivery_flag */
	bool from_host;
	bool from_tunnel;
};

/* Does not return when the endpoint's policy program is there: that decides. */
static __always_inline int deliver_local4(struct __sk_buff *ctx, const struct endpoint_info *ep,
					  const struct delivery *from)
{
	/* Copied: packet writes must not lie between a map value and its use by the tail call. */
	__u32 endpoint = ep->lxc_id;
	__u32 ifindex = ep->ifindex;
	int ret = ipv4_hop(ctx, ep->node_mac.addr, ep->mac.addr);

	if (unlikely(ret < 0))
		return ret;
	if (enable_endpoint_routes) {
		/* Policy waits at the pod's veth, in to-container; the mark says who sent it. */
		ctx->mark = identity_mark(from->src_label, MARK_MAGIC_IDENTITY) |
			    (from->flags & DELIVERY_HAIRPIN ? MARK_HAIRPIN : 0);
		return bpf_redirect(ifindex, 0);
	}
	cb_set(ctx, CB_SRC_LABEL, from->src_label);
	cb_set(ctx, CB_DELIVERY, from->flags);
	cb_set(ctx, CB_FROM_HOST, from->from_host);
	cb_set(ctx, CB_FROM_TUNNEL, from->from_tunnel);
	mind_say(ctx, MIND_TAIL_CALL, MIND_MAP_CALL_POLICY, endpoint);
	bpf_tail_call(ctx, &cilium_call_policy, endpoint);
	return DROP_EP_NOT_READY;
}
