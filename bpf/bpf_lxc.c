// SPDX-License-Identifier: GPL-2.0
/*
 * The pod's side of the datapath. Attached to the host end of its veth, so that what the pod sends
 * arrives at tc ingress (from-container) and what it receives leaves at tc egress (to-container).
 *
 *   from-container ─► 6 ARP, answered here
 *                  └► 7 IPv4 ─► to the stack, the tunnel, or another pod's handle_policy
 *   handle_policy  ─► the pod's veth     (entered by tail call, on the hook of the deliverer)
 *   to-container   ─► the pod            (only with a route per endpoint)
 */
#define THIS_FILE FILE_BPF_LXC

#include "lib/arp.h"
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

/* Where a packet the pod may send goes next. A verdict or a DROP_*. */
static __always_inline int route_from_lxc(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct trace_info trace = { .src_label = security_identity };
	struct delivery from = { .src_label = security_identity };
	const struct remote_endpoint_info *remote;
	const struct endpoint_info *ep;
	struct iphdr *ip4 = ipv4_header(ctx);
	__be32 daddr, node;

	if (!ip4)
		return DROP_INVALID;
	daddr = ip4->daddr;

	/* 1. Who is it for? */
	remote = ipcache_lookup4(ctx, daddr);
	trace.dst_label = remote && remote->sec_identity ? remote->sec_identity : IDENTITY_WORLD;
	drop->dst_label = trace.dst_label;

	/* 2. A pod of this node: its own policy program decides. */
	ep = endpoint_lookup4(ctx, daddr);
	if (ep && !(ep->flags & ENDPOINT_F_HOST) && !enable_endpoint_routes) {
		metrics_count(ctx->len, REASON_FORWARDED, METRIC_EGRESS);
		return deliver_local4(ctx, ep, &from);
	}

	/* 3. A pod of another node: through the tunnel, with our identity as VNI. */
	node = enable_tunnel && !ep ? tunnel_endpoint4(ctx, remote, daddr) : 0;
	if (node)
		return encap_redirect(ctx, node, &trace);

	/* 4. The node itself, or the world: its stack knows the way. */
	trace_notify(ctx, TRACE_TO_STACK, &trace);
	return pass_to_stack(ctx, security_identity);
}

/* May this packet leave the pod at all? 0 or a DROP_*. */
static __always_inline int check_from_lxc(struct __sk_buff *ctx)
{
	struct iphdr *ip4 = ipv4_header(ctx);

	if (!ip4 || !ipv4_is_sane(ctx, ip4))
		return DROP_INVALID;
	if (ip4->saddr != endpoint_ipv4)
		return DROP_INVALID_SIP;
	return 0;
}

/* The node's answer to "who has ...?": the host end of this veth, whatever the address. A pod
 * asking for its own address probes for a duplicate: no answer is the right answer. */
TAIL_CALL("cilium_calls/6") int tail_handle_arp(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = security_identity, .dir = METRIC_EGRESS };
	struct arp_ipv4 arp;
	int ret;

	ret = arp_read_request(ctx, &arp);
	if (!ret && arp.tpa == endpoint_ipv4)
		return TC_ACT_OK;
	if (!ret)
		ret = arp_write_reply(ctx, &arp, interface_mac);
	if (ret < 0)
		return drop_notify(ctx, ret, &drop);
	return bpf_redirect(interface_ifindex, 0);
}

TAIL_CALL("cilium_calls/7") int tail_handle_ipv4(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = security_identity, .dir = METRIC_EGRESS };
	int ret = check_from_lxc(ctx);

	if (!ret)
		ret = route_from_lxc(ctx, &drop);
	if (ret < 0)
		return drop_notify(ctx, ret, &drop);
	return ret;
}

/* Ingress policy of this endpoint: called through cilium_call_policy by whoever delivers to it. */
TAIL_CALL("cilium_call_policy/ENDPOINT_ID") int handle_policy(struct __sk_buff *ctx)
{
	struct trace_info trace = {
		.src_label = ctx->cb[CB_SRC_LABEL],
		.dst_label = security_identity,
		.dst_id = endpoint_id,
		.ifindex = interface_ifindex,
	};

	trace_notify(ctx, TRACE_TO_LXC, &trace);
	return bpf_redirect(interface_ifindex, 0);
}

/* tc egress of the pod's veth, reached through the stack: with a route per endpoint. */
SEC("to-container") int cil_to_container(struct __sk_buff *ctx)
{
	__u32 magic = ctx->mark & MARK_MAGIC_MASK;
	struct iphdr *ip4;
	struct trace_info trace = {
		.src_label = IDENTITY_WORLD,
		.dst_label = security_identity,
		.dst_id = endpoint_id,
		.ifindex = interface_ifindex,
	};

	cb_clear(ctx);

	/* 1. ARP of the node's stack for the pod's address passes. */
	if (ctx->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;

	/* 2. Who sent it: the mark, the node itself, or whoever the address belongs to. */
	ip4 = ipv4_header(ctx);
	if (magic == MARK_MAGIC_IDENTITY)
		trace.src_label = identity_of_mark(ctx->mark);
	else if (magic == MARK_MAGIC_HOST)
		trace.src_label = IDENTITY_HOST;
	else if (ip4)
		trace.src_label = ipcache_identity4(ctx, ip4->saddr);

	/* 3. Into the pod. */
	trace_notify(ctx, TRACE_TO_LXC, &trace);
	return TC_ACT_OK;
}

/* tc ingress of the pod's veth: everything the pod sends. */
SEC("from-container") int cil_from_container(struct __sk_buff *ctx)
{
	struct trace_info trace = { .src_label = security_identity };
	struct drop_info drop = { .src_label = security_identity, .dir = METRIC_EGRESS };
	int ret;

	/* 1. Nothing of an earlier hook may speak for this packet. */
	cb_clear(ctx);
	ctx->tc_classid = 0;
	ctx->mark = 0;

	/* 2. Tell that it came. */
	trace_notify(ctx, TRACE_FROM_LXC, &trace);

	/* 3. Which protocol? */
	if (eth_has_vlan(ctx))
		ret = DROP_VLAN_FILTERED;
	else if (ctx->protocol == bpf_htons(ETH_P_IP))
		ret = tail_call(ctx, CALL_IPV4, &drop.ext_err);
	else if (ctx->protocol == bpf_htons(ETH_P_ARP))
		ret = tail_call(ctx, CALL_ARP, &drop.ext_err);
	else
		ret = DROP_UNKNOWN_L3;
	return drop_notify(ctx, ret, &drop);
}
