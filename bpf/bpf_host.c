// SPDX-License-Identifier: GPL-2.0
/*
 * The node's side of the datapath.
 *
 *   cilium_host  tc egress   from-host ─► 22 IPv4   the node sends to pods, near and far
 *   cilium_host  tc ingress  to-host                the last hop into the node's stack
 *   cilium_net   tc ingress  to-host                the same, from the other end of the pair
 *   eth0         tc ingress  from-netdev ─► 7 IPv4  from the underlay
 *   eth0         tc egress   to-netdev              to the underlay
 */
#define THIS_FILE FILE_BPF_HOST

#include "lib/common.h"
#include "lib/config.h"
#include "lib/drop.h"
#include "lib/encap.h"
#include "lib/eps.h"
#include "lib/host.h"
#include "lib/identity.h"
#include "lib/ipcache.h"
#include "lib/ipv4.h"
#include "lib/local_delivery.h"
#include "lib/tailcall.h"
#include "lib/trace.h"

/* From cilium_host into the cluster: a pod here, a pod behind the tunnel, or the stack again.
 * A verdict or a DROP_*. */
static __always_inline int route_from_host(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct trace_info trace = { .src_label = drop->src_label };
	struct delivery from = {
		.src_label = drop->src_label,
		.from_host = drop->src_label == IDENTITY_HOST,
	};
	const struct remote_endpoint_info *remote;
	struct iphdr *ip4 = ipv4_header(ctx);
	const struct endpoint_info *ep;
	__be32 daddr, node;

	if (!ip4 || !ipv4_is_sane(ctx, ip4))
		return DROP_INVALID;
	daddr = ip4->daddr;

	/* 1. A forwarded packet without a mark is from whoever its address belongs to; "host" from
	 *    the ipcache does not count, the node's address may have been put there by NAT. */
	if (from.src_label == IDENTITY_WORLD) {
		__u32 known = ipcache_identity4(ctx, ip4->saddr);

		if (known != IDENTITY_HOST)
			from.src_label = known;
		drop->src_label = from.src_label;
		trace.src_label = from.src_label;
	}

	/* 2. A pod of this node. */
	ep = endpoint_lookup4(ctx, daddr);
	if (ep && !(ep->flags & ENDPOINT_F_HOST))
		return deliver_local4(ctx, ep, &from);

	/* 3. A pod of another node. */
	remote = ipcache_lookup4(ctx, daddr);
	trace.dst_label = remote && remote->sec_identity ? remote->sec_identity : IDENTITY_WORLD;
	drop->dst_label = trace.dst_label;
	node = enable_tunnel && !ep ? tunnel_endpoint4(ctx, remote, daddr) : 0;
	if (node)
		return encap_redirect(ctx, node, &trace);

	/* 4. An address of this node: across the pair. */
	if (ep) {
		trace_notify(ctx, TRACE_TO_HOST, &trace);
		return TC_ACT_OK;
	}
	return DROP_UNROUTABLE;
}

TAIL_CALL("cilium_calls/22") int tail_handle_ipv4_from_host(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = cb_get(ctx, CB_SRC_LABEL), .dir = METRIC_EGRESS };
	int ret = route_from_host(ctx, &drop);

	if (ret < 0)
		return drop_notify(ctx, ret, &drop);
	return ret;
}

/* From the underlay: the tunnel's outer packets and everything for the node go to its stack, which
 * also routes pods' packets (to cilium_host) where there is no tunnel. */
TAIL_CALL("cilium_calls/7") int tail_handle_ipv4_from_netdev(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = IDENTITY_WORLD, .dir = METRIC_INGRESS };
	struct iphdr *ip4 = ipv4_header(ctx);

	if (!ip4 || !ipv4_is_sane(ctx, ip4))
		return drop_notify(ctx, DROP_INVALID, &drop);
	return TC_ACT_OK;
}

/* tc ingress of cilium_host and of cilium_net. */
SEC("to-host") int cil_to_host(struct __sk_buff *ctx)
{
	struct trace_info trace = { .dst_label = IDENTITY_HOST, .ifindex = interface_ifindex };

	cb_clear(ctx);
	/* 1. Who sent it: said by the mark of the program that redirected here. */
	if ((ctx->mark & MARK_MAGIC_MASK) == MARK_MAGIC_IDENTITY)
		trace.src_label = identity_of_mark(ctx->mark);
	/* 2. Into the stack. */
	trace_notify(ctx, TRACE_TO_HOST, &trace);
	return TC_ACT_OK;
}

/* tc egress of cilium_host. */
SEC("from-host") int cil_from_host(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = identity_from_host(ctx), .dir = METRIC_EGRESS };
	struct trace_info trace = { .src_label = drop.src_label };
	int ret;

	/* 1. The mark has said what it had to say. */
	cb_clear(ctx);
	ctx->mark = 0;

	/* 2. ARP for addresses behind us: nobody answers on the other end, and nobody needs to. */
	if (ctx->protocol == bpf_htons(ETH_P_ARP))
		return TC_ACT_OK;
	trace_notify(ctx, TRACE_FROM_HOST, &trace);

	/* 3. Which protocol? */
	cb_set(ctx, CB_SRC_LABEL, drop.src_label);
	if (ctx->protocol == bpf_htons(ETH_P_IP))
		ret = tail_call(ctx, CALL_IPV4_FROM_HOST, &drop.ext_err);
	else
		ret = DROP_UNKNOWN_L3;
	return drop_notify(ctx, ret, &drop);
}

/* tc egress of the uplink. */
SEC("to-netdev") int cil_to_netdev(struct __sk_buff *ctx)
{
	__u32 magic = ctx->mark & MARK_MAGIC_MASK;
	struct trace_info trace = { .ifindex = interface_ifindex };

	cb_clear(ctx);
	/* 1. Who sends: a pod through the stack or the tunnel, or the node. */
	if (magic == MARK_MAGIC_OVERLAY || magic == MARK_MAGIC_IDENTITY)
		trace.src_label = identity_of_mark(ctx->mark);
	else
		trace.src_label = IDENTITY_HOST;
	/* 2. Out. */
	trace_notify(ctx, TRACE_TO_NETWORK, &trace);
	return TC_ACT_OK;
}

/* tc ingress of the uplink. */
SEC("from-netdev") int cil_from_netdev(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = IDENTITY_WORLD, .dir = METRIC_INGRESS };
	struct trace_info trace = { .ifindex = interface_ifindex };
	int ret;

	/* 1. Nothing of the other end may speak for this packet. */
	cb_clear(ctx);
	ctx->mark = 0;

	/* 2. No VLAN is configured here: a tagged frame belongs to another network. */
	if (eth_has_vlan(ctx))
		return drop_notify(ctx, DROP_VLAN_FILTERED, &drop);

	/* 3. The underlay's own protocols are the stack's. */
	trace_notify(ctx, TRACE_FROM_NETWORK, &trace);
	if (ctx->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	ret = tail_call(ctx, CALL_IPV4, &drop.ext_err);
	return drop_notify(ctx, ret, &drop);
}
