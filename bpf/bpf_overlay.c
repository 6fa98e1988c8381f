// SPDX-License-Identifier: GPL-2.0
/*
 * The tunnel device cilium_vxlan.
 *
 *   from-overlay (tc ingress: just decapsulated) ─► 7 IPv4 ─► pod's handle_policy, or the node
 *   to-overlay   (tc egress: about to be encapsulated)
 */
#define THIS_FILE FILE_BPF_OVERLAY

#include "lib/common.h"
#include "lib/config.h"
#include "lib/drop.h"
#include "lib/eps.h"
#include "lib/host.h"
#include "lib/identity.h"
#include "lib/ipcache.h"
#include "lib/ipv4.h"
#include "lib/local_delivery.h"
#include "lib/nodeport.h"
#include "lib/tailcall.h"
#include "lib/trace.h"

/* The sender's identity as the other node put it into the VNI; a DROP_* when it cannot be. */
static __always_inline int identity_from_overlay(struct __sk_buff *ctx, __u32 *label)
{
	struct bpf_tunnel_key key; /* the helper writes all of it */

	if (unlikely(bpf_skb_get_tunnel_key(ctx, &key, sizeof(key), 0)))
		return DROP_NO_TUNNEL_KEY;
	/* "host" is this very node, "unknown" nobody: neither may come from outside. */
	if (unlikely(key.tunnel_id == IDENTITY_HOST || key.tunnel_id == IDENTITY_UNKNOWN))
		return DROP_INVALID_IDENTITY;
	*label = key.tunnel_id;
	return 0;
}

/* A verdict or a DROP_*. */
static __always_inline int deliver_from_overlay(struct __sk_buff *ctx, __u32 label)
{
	struct delivery from = { .src_label = label, .flags = DELIVERY_PEER, .from_tunnel = true };
	struct iphdr *ip4 = ipv4_header(ctx);
	const struct endpoint_info *ep;

	if (unlikely(!ip4 || !ipv4_is_sane(ctx, ip4)))
		return DROP_INVALID;
	/* 1. A pod: its own policy program decides. */
	ep = endpoint_lookup4(ctx, ip4->daddr);
	if (ep && !(ep->flags & ENDPOINT_F_HOST))
		return deliver_local4(ctx, ep, &from);
	/* 2. The node itself. */
	return redirect_to_host(ctx, label);
}

/* What comes to the node itself may be for a node port of it, or be the answer of a backend on
 * another node: NodePort gave its request that address. */
static __always_inline bool may_be_nodeport(struct __sk_buff *ctx)
{
	struct iphdr *ip4 = ipv4_header(ctx);

	return enable_nodeport && !cb_get(ctx, CB_NODEPORT) && ip4 && ip4->daddr == router_ipv4;
}

/* Services out of the tunnel: a DROP_*, or does not return. */
static __always_inline int nodeport_from_overlay(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct flow4 flow = {};
	struct lb4_request request = { .flow = &flow };
	int ret = flow4_read(ctx, &flow);

	/* Protocols without ports are not for services: the stack's. */
	if (ret == DROP_CT_UNKNOWN_PROTO)
		return nodeport_done(ctx, &drop->ext_err);
	if (!ret)
		ret = nodeport_lb4(ctx, &request);
	if (ret < 0)
		return ret;
	if (ret == NODEPORT_LOCAL)
		return nodeport_done(ctx, &drop->ext_err);
	if (ret == NODEPORT_REMOTE)
		return tail_call(ctx, CALL_NODEPORT_NAT_EGRESS, &drop->ext_err);
	return tail_call(ctx, CALL_NODEPORT_NAT_INGRESS, &drop->ext_err);
}

TAIL_CALL("cilium_calls/7") int tail_handle_ipv4(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = cb_get(ctx, CB_SRC_LABEL), .dir = METRIC_INGRESS };
	int ret;

	mind_enter(ctx, MIND_PROGRAM_IPV4_FROM_OVERLAY);
	if (unlikely(may_be_nodeport(ctx)))
		ret = nodeport_from_overlay(ctx, &drop);
	else
		ret = deliver_from_overlay(ctx, drop.src_label);
	if (unlikely(ret < 0))
		return drop_notify(ctx, ret, &drop);
	return ret;
}

/* tc egress of the tunnel: says on the mark that the outer packet is ours and whose it is. */
SEC("to-overlay") int cil_to_overlay(struct __sk_buff *ctx)
{
	struct drop_info drop = { .dir = METRIC_EGRESS };
	struct bpf_tunnel_key key; /* the helper writes all of it */

	cb_clear(ctx);
	mind_enter(ctx, MIND_PROGRAM_TO_OVERLAY);
	/* 1. Only packets that one of our programs addressed may enter. */
	if (unlikely(bpf_skb_get_tunnel_key(ctx, &key, sizeof(key), 0)))
		return drop_notify(ctx, DROP_NO_TUNNEL_KEY, &drop);
	/* 2. The outer packet inherits the mark: to-netdev will know it. */
	ctx->mark = identity_mark(key.tunnel_id, MARK_MAGIC_OVERLAY);
	return TC_ACT_OK;
}

/* tc ingress of the tunnel. */
SEC("from-overlay") int cil_from_overlay(struct __sk_buff *ctx)
{
	struct drop_info drop = { .dir = METRIC_INGRESS };
	struct trace_info trace = {};
	int ret;

	/* 1. The mark of the outer packet is not the inner one's. */
	cb_clear(ctx);
	ctx->mark = 0;
	mind_enter(ctx, MIND_PROGRAM_FROM_OVERLAY);

	/* 2. Who sent it? */
	ret = identity_from_overlay(ctx, &drop.src_label);
	if (unlikely(ret < 0))
		return drop_notify(ctx, ret, &drop);
	trace.src_label = drop.src_label;
	trace_notify(ctx, TRACE_FROM_OVERLAY, &trace);

	/* 3. Which protocol? */
	cb_set(ctx, CB_SRC_LABEL, drop.src_label);
	if (unlikely(ctx->protocol != bpf_htons(ETH_P_IP)))
		ret = DROP_UNKNOWN_L3;
	else if (inline_tail_calls && likely(!may_be_nodeport(ctx)))
		ret = deliver_from_overlay(ctx, drop.src_label);
	else
		ret = tail_call(ctx, CALL_IPV4, &drop.ext_err);
	return unlikely(ret < 0) ? drop_notify(ctx, ret, &drop) : ret;
}
