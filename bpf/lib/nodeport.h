/* SPDX-License-Identifier: GPL-2.0 */
/*
 * NodePort: a service reached from outside, on the node's uplink.
 *
 *   request   7 choose a backend, translate ─┬► local pod
 *                                            ├► 15 SNAT ─► its node     (or 20 DSR ─► its node)
 *   answer   36 undo SNAT ─► 17 undo the translation ─► client
 *
 * Shared by bpf_host (uplink) and bpf_overlay (answers of backends behind the tunnel).
 */
#pragma once

#include "common.h"
#include "config.h"
#include "conntrack.h"
#include "drop.h"
#include "encap.h"
#include "fib.h"
#include "flow.h"
#include "lb.h"
#include "leave.h"
#include "masquerade.h"
#include "nat.h"
#include "tailcall.h"

/* Where nodeport_lb4() wants the packet; a DROP_* otherwise. */
enum nodeport_next {
	NODEPORT_NONE = 0, /* not for a service */
	NODEPORT_LOCAL = 1, /* translated, the backend is here */
	NODEPORT_REMOTE = 2, /* translated, the backend is elsewhere */
};

/* Notes that the translated flow has to be translated back: by its service, or (flag CT_F_DSR, on
 * the backend's node) as the DSR option said. 0 or a DROP_*. */
static __always_inline int nodeport_track(struct __sk_buff *ctx, __be16 rev_nat_index, __u16 flag)
{
	struct ct_state state = {
		.rev_nat_index = rev_nat_index,
		.flags = flag,
		.src_sec_id = IDENTITY_WORLD,
	};
	struct ct_buffer4 ct = {};
	struct flow4 flow = {};
	int ret = flow4_read(ctx, &flow);

	if (ret < 0)
		return ret;
	ret = ct_lookup4(ctx, &flow, CT_EGRESS, &ct);
	if (ret < 0 || ret == CT_REPLY || ret == CT_RELATED)
		return ret < 0 ? ret : 0;
	if (ret != CT_NEW && ct.state.rev_nat_index == rev_nat_index && ct.state.flags & flag)
		return 0;
	ret = ct_create4(ctx, &flow, CT_EGRESS, &state);
	/* The client has reached this backend by another service before: what the backend's end
	 * remembers of that is no longer true. */
	tuple_set_flags(&flow.tuple, TUPLE_F_IN);
	ct_forget(&flow.tuple);
	return ret;
}

/* A flow that opens to a backend directly may have the ports of one that came by a service: the
 * backend's answers to it are its own. */
static __always_inline void nodeport_forget(const struct flow4 *flow)
{
	struct ipv4_ct_tuple tuple IN_WORDS;
	const struct ct_entry *entry;

	if (likely(!ct_opens(flow)))
		return;
	tuple_copy(&tuple, &flow->tuple);
	tuple_turn(&tuple);
	tuple_set_flags(&tuple, TUPLE_F_OUT);
	entry = ct_find(&tuple);
	if (likely(!entry || !(entry->flags & (CT_F_NODE_PORT | CT_F_DSR))))
		return;
	ct_forget(&tuple);
	tuple_set_flags(&tuple, TUPLE_F_IN);
	ct_forget(&tuple);
}

/* Is the packet for a service that may be used from outside? Then it is translated: an enum
 * nodeport_next, or a DROP_*. `request` must name the packet's flow. */
static __always_inline int nodeport_lb4(struct __sk_buff *ctx, struct lb4_request *request)
{
	const struct lb4_backend *backend = NULL;
	const struct lb4_service *svc;
	struct ct_state state = {};
	bool local;
	int ret;

	lb4_key_set(&request->key, request->flow);
	request->maglev = enable_maglev;
	svc = lb4_lookup_service(ctx, &request->key, false);
	if (!svc || request->flow->error)
		return NODEPORT_NONE;
	if (!lb4_source_allowed(svc, request->flow->tuple.saddr))
		return DROP_NOT_IN_SRC_RANGE;
	if (!(svc->flags & SVC_F_ROUTABLE))
		return DROP_IS_CLUSTER_IP;
	ret = lb4_local(ctx, request, svc, &state, &backend);
	if (ret < 0 || !backend)
		return ret;
	local = endpoint_lookup4(ctx, backend->address);
	neigh_learn(ctx, request->flow->tuple.saddr);
	ret = lb4_xlate(ctx, request->flow, backend);
	if (!ret)
		ret = nodeport_track(ctx, state.rev_nat_index, CT_F_NODE_PORT);
	return ret < 0 ? ret : local ? NODEPORT_LOCAL : NODEPORT_REMOTE;
}

/* Undoes the translation of an answer whose flow nodeport_track() noted, or of an error about that
 * flow; 1, 0 none, a DROP_*. */
static __always_inline int nodeport_rev_dnat(struct __sk_buff *ctx)
{
	struct ct_buffer4 ct = {};
	struct flow4 flow = {};
	struct ct_entry *entry;
	int ret = flow4_read(ctx, &flow);

	if (ret < 0)
		return ret;
	/* Only looked at: whose packet it is decides who accounts for it. */
	flow.tuple.flags = TUPLE_F_OUT;
	entry = ct_find(&flow.tuple);
	if (!entry || !(entry->flags & CT_F_NODE_PORT))
		return 0;
	ret = ct_lookup4(ctx, &flow, CT_INGRESS, &ct);
	if (ret != CT_REPLY && ret != CT_RELATED)
		return ret < 0 ? ret : 0;
	ret = lb4_rev_nat(ctx, &flow, ct.state.rev_nat_index);
	return ret < 0 ? ret : 1;
}

/* Back to the start of the object's IPv4 handling, services done with. */
static __always_inline int nodeport_done(struct __sk_buff *ctx, __s8 *ext_err)
{
	cb_set(ctx, CB_NODEPORT, 1);
	return tail_call(ctx, CALL_IPV4, ext_err);
}

/* To a remote backend with our own address as source. A verdict or a DROP_*. */
static __always_inline int nodeport_snat(struct __sk_buff *ctx, struct drop_info *drop)
{
	struct trace_info trace = { .src_label = IDENTITY_WORLD };
	__u32 fib_err = 0;
	struct flow4 flow = {};
	__be32 node = 0;
	int ret = flow4_read(ctx, &flow);

	if (ret < 0)
		return ret;
	if (enable_tunnel)
		node = tunnel_endpoint4(ctx, ipcache_lookup4(ctx, flow.tuple.daddr),
					flow.tuple.daddr);
	/* The backend's node answers into the tunnel what came out of it. */
	ret = snat_egress(ctx, &flow, node ? router_ipv4 : node_ipv4);
	if (ret < 0)
		return ret;
	ctx->mark = MARK_MAGIC_SNAT_DONE;
	if (node)
		return encap_redirect(ctx, node, &trace);
	ret = fib_redirect4(ctx, &fib_err);
	drop->ext_err = fib_err;
	return ret;
}

/* What the node itself receives, its address translated back, prolongs its own flow. 1 or a DROP_*. */
static __always_inline int track_node_answer(struct __sk_buff *ctx)
{
	struct flow4 flow = {};
	int ret = flow4_read(ctx, &flow);

	if (!ret && flow.tuple.daddr == node_ipv4)
		ret = track_node_flow(ctx, &flow, CT_INGRESS);
	return ret < 0 ? ret : 1;
}

TAIL_CALL("cilium_calls/15") int tail_nodeport_nat_ipv4(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = IDENTITY_WORLD, .dir = METRIC_EGRESS };
	int ret;

	mind_enter(ctx, MIND_PROGRAM_NODEPORT_NAT_EGRESS);
	ret = enable_nodeport ? nodeport_snat(ctx, &drop) : DROP_NAT_NOT_NEEDED;
	if (ret < 0)
		return drop_notify(ctx, ret, &drop);
	return ret;
}

/* An answer to a translated flow gets its destination back; everything else goes on. */
TAIL_CALL("cilium_calls/36") int tail_nodeport_nat_ingress_ipv4(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = IDENTITY_WORLD, .dir = METRIC_INGRESS };
	struct flow4 flow = {};
	int ret;

	mind_enter(ctx, MIND_PROGRAM_NODEPORT_NAT_INGRESS);
	if (!nat_enabled())
		return drop_notify(ctx, DROP_NAT_NOT_NEEDED, &drop);
	ret = flow4_read(ctx, &flow);
	if (!ret)
		ret = snat_ingress(ctx, &flow);
	if (ret == 1 && enable_masquerade)
		ret = track_node_answer(ctx);
	if (ret == 1 && enable_nodeport)
		ret = tail_call(ctx, CALL_NODEPORT_REVNAT, &drop.ext_err);
	if (ret >= 0)
		ret = nodeport_done(ctx, &drop.ext_err);
	return drop_notify(ctx, ret, &drop);
}

/* A backend's answer gets the service's address back and leaves for the client. */
TAIL_CALL("cilium_calls/17") int tail_rev_nodeport_lb4(struct __sk_buff *ctx)
{
	struct drop_info drop = { .src_label = IDENTITY_WORLD, .dir = METRIC_EGRESS };
	struct iphdr *ip4;
	int ret;

	mind_enter(ctx, MIND_PROGRAM_NODEPORT_REVNAT);
	if (!enable_nodeport)
		return drop_notify(ctx, DROP_NAT_NOT_NEEDED, &drop);
	ret = nodeport_rev_dnat(ctx);
	if (!ret)
		ret = nodeport_done(ctx, &drop.ext_err);
	ip4 = ipv4_header(ctx);
	if (ret == 1)
		ret = ip4 ? leave_for_client(ctx, ip4->daddr, &drop) : DROP_INVALID;
	if (ret < 0)
		return drop_notify(ctx, ret, &drop);
	return ret;
}
