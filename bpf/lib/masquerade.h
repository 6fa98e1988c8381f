/* SPDX-License-Identifier: GPL-2.0 */
/* Which packets leave the node with the node's address as source. */
#pragma once

#include "common.h"
#include "config.h"
#include "conntrack.h"
#include "eps.h"
#include "identity.h"
#include "ipcache.h"
#include "mind.h"

struct ipmasq_key {
	__u32 prefixlen;
	__be32 addr;
};

_Static_assert(sizeof(struct ipmasq_key) == 8, "cilium_ipmasq_v4 key");

/* Written by the agent: destinations that are not to see the node's address instead of the pod's.
 * Capacity: Cilium's. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipmasq_key);
	__type(value, __u8);
} cilium_ipmasq_v4 SEC(".maps");

static __always_inline bool masquerade_excepted(struct __sk_buff *ctx, __be32 daddr)
{
	struct ipmasq_key key = { .prefixlen = 32, .addr = daddr };
	const __u8 *hit = bpf_map_lookup_elem(&cilium_ipmasq_v4, &key);

	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_LOOKUP, MIND_MAP_IPMASQ, 0);

		mind_fill(&note, &key, sizeof(key), hit, sizeof(*hit));
		mind_write(ctx, &note);
	}
	return hit;
}

/* The packet answers a flow that came in from outside: its client knows the pod's address. */
static __always_inline bool is_answer(const struct flow4 *flow)
{
	struct ipv4_ct_tuple tuple = flow->tuple;

	tuple.flags = TUPLE_F_IN;
	return ct_find(&tuple);
}

/* The address `flow` has to leave with, 0 for its own. */
static __always_inline __be32 masquerade_address(struct __sk_buff *ctx, const struct flow4 *flow)
{
	__be32 daddr = flow->tuple.daddr, saddr = flow->tuple.saddr;
	const struct endpoint_info *ep;
	__u16 port = bpf_ntohs(flow4_sport(flow));

	/* Without it the node's address is netfilter's to give: what has it may be a pod's. */
	if (!enable_masquerade)
		return 0;
	/* The node's own packets pass, but their ports are taken: a pod, or a client of a NodePort,
	 * must not get the same. */
	if (saddr == node_ipv4)
		return port >= snat_port_min && port <= snat_port_max ? node_ipv4 : 0;
	if ((daddr & native_routing_cidr_mask) == native_routing_cidr)
		return 0;
	ep = endpoint_lookup4(ctx, saddr);
	if (!ep || ep->flags & ENDPOINT_F_HOST)
		return 0;
	/* Other nodes can answer a pod's address only where pods are routed. */
	if (!enable_tunnel && !identity_is_outside(ipcache_identity4(ctx, daddr)))
		return 0;
	if (masquerade_excepted(ctx, daddr) || is_answer(flow))
		return 0;
	return node_ipv4;
}

/*
 * The node's own flow, of which no pod's program sees anything: remembered as long as it lives, or
 * its translation would be collected under it. `dir` CT_EGRESS opens one, CT_INGRESS prolongs what
 * is there. 0 or a DROP_*.
 */
VERIFIED_ONCE int track_node_flow(struct __sk_buff *ctx, const struct flow4 *seen, enum ct_dir dir)
{
	struct ct_state state = { .src_sec_id = IDENTITY_HOST };
	struct ct_buffer4 ct = {};
	struct flow4 flow;
	int ret;

	if (!seen)
		return DROP_INVALID_TC_BUFFER;
	flow = *seen;
	ret = ct_lookup4(ctx, &flow, dir, &ct);
	if (ret < 0)
		return ret;
	return ret == CT_NEW && dir == CT_EGRESS ? ct_create4(ctx, &flow, dir, &state) : 0;
}
