/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Source NAT. A translated flow has two entries in cilium_snat_v4_external, keyed by the packet as
 * it is before translation, addresses and ports in true order: OUT says what source its packets
 * get, IN what destination its answers get. The ICMP identifier is the port on the pinged side's
 * opposite: source port of a request, destination port of a reply.
 */
#pragma once

#include "common.h"
#include "config.h"
#include "conntrack.h"
#include "drop_reasons.h"
#include "flow.h"
#include "mind.h"
#include "rewrite.h"
#include "signal.h"

#define SNAT_RETRIES 32

enum nat_flag {
	NAT_F_OUT = 0,
	NAT_F_IN = 1,
};

struct ipv4_nat_entry {
	__u64 created; /* monotonic clock, s */
	__u64 needs_ct;
	__u64 pad[2];
	__be32 to_addr; /* OUT: new source; IN: new destination */
	__be16 to_port;
	__u16 pad2;
};

_Static_assert(sizeof(struct ipv4_nat_entry) == 40, "cilium_snat_v4_external value");

/* Written and read by the datapath; the agent removes what conntrack no longer knows. Capacity:
 * two entries per translated flow; when full, the least recently used makes room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct ipv4_ct_tuple);
	__type(value, struct ipv4_nat_entry);
} cilium_snat_v4_external SEC(".maps");

/* Does any feature translate addresses on this node? Where none does, nothing is loaded for it. */
static __always_inline bool nat_enabled(void)
{
	return enable_nodeport || enable_masquerade;
}

/* The packet's flow as NAT keys it. */
static __always_inline struct ipv4_ct_tuple nat_tuple(const struct flow4 *flow, enum nat_flag dir)
{
	return (struct ipv4_ct_tuple){
		.daddr = flow->tuple.daddr,
		.saddr = flow->tuple.saddr,
		.dport = flow4_dport(flow),
		.sport = flow4_sport(flow),
		.nexthdr = flow->tuple.nexthdr,
		.flags = dir,
	};
}

static __always_inline void nat_note(struct __sk_buff *ctx, const struct ipv4_ct_tuple *tuple,
				     const struct ipv4_nat_entry *entry)
{
	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_NAT, tuple->flags, 0);

		mind_fill(&note, tuple, sizeof(*tuple), entry ? &entry->to_addr : NULL, 8);
		mind_write(ctx, &note);
	}
}

/* Protocols with something like a port, and the ICMP messages that have one. 0 or a DROP_*. */
static __always_inline int nat_supports(const struct flow4 *flow)
{
	if (flow->proto == IPPROTO_SCTP)
		return DROP_NAT_UNSUPP_PROTO; /* its checksum would have to be computed anew */
	if (flow->proto != IPPROTO_ICMP || flow->error)
		return 0;
	return flow->icmp_type == ICMP4_ECHO ? 0 : DROP_UNKNOWN_ICMP4_TYPE;
}

static __always_inline bool is_pong(const struct flow4 *flow)
{
	return flow->proto == IPPROTO_ICMP && flow->icmp_type == ICMP4_ECHO_REPLY;
}

/* Does the way back lead to this flow already? Its other entry was evicted then. */
static __always_inline bool snat_is_ours(const struct ipv4_ct_tuple *in,
					 const struct ipv4_ct_tuple *out)
{
	const struct ipv4_nat_entry *back = bpf_map_lookup_elem(&cilium_snat_v4_external, in);

	return back && back->to_addr == out->saddr && back->to_port == out->sport;
}

/* A pair of entries for a new flow whose packets shall come from `addr`; the port is kept if it
 * is free and in the range. 0 or DROP_NAT_NO_MAPPING. */
VERIFIED_ONCE int snat_create(struct __sk_buff *ctx, const struct ipv4_ct_tuple *out, __be32 addr)
{
	__u32 span = snat_port_max - snat_port_min + 1u, first;
	struct ipv4_nat_entry entry = { .created = now_s() };
	struct ipv4_ct_tuple in = {}, key;
	bool taken;
	__u32 port;

	if (!out || !span)
		return DROP_NAT_NO_MAPPING;
	key = *out;
	port = bpf_ntohs(out->sport);
	first = port >= snat_port_min && port <= snat_port_max ? port - snat_port_min :
		bpf_get_prandom_u32() % span;
	in.daddr = addr;
	in.saddr = out->daddr;
	in.sport = out->nexthdr == IPPROTO_ICMP ? 0 : out->dport;
	in.nexthdr = out->nexthdr;
	in.flags = NAT_F_IN;
	entry.to_addr = out->saddr;
	entry.to_port = out->sport;
	for (int i = 0; i < SNAT_RETRIES; i++) {
		if (i == SNAT_RETRIES / 2)
			signal_send(ctx, SIGNAL_NAT_FILL_UP);
		in.dport = bpf_htons(snat_port_min + (first + i) % span);
		taken = bpf_map_update_elem(&cilium_snat_v4_external, &in, &entry, BPF_NOEXIST);
		if (taken && !snat_is_ours(&in, &key))
			continue;
		entry.to_addr = addr;
		entry.to_port = in.dport;
		if (!bpf_map_update_elem(&cilium_snat_v4_external, &key, &entry, BPF_ANY)) {
			runtime_add(RUNTIME_CONFIG_NAT_CREATED, taken ? 1 : 2);
			return 0;
		}
		bpf_map_delete_elem(&cilium_snat_v4_external, &in);
		break;
	}
	return DROP_NAT_NO_MAPPING;
}

/* 0 or a DROP_*. */
VERIFIED_ONCE int nat_rewrite(struct __sk_buff *ctx, const struct flow4 *flow,
			      const struct ipv4_nat_entry *entry, enum rewrite_side side)
{
	struct rewrite4 change = {};

	if (!flow || !entry)
		return DROP_NAT_NO_MAPPING;
	change.side = side;
	change.old_addr = side == REWRITE_SRC ? flow->tuple.saddr : flow->tuple.daddr;
	change.new_addr = entry->to_addr;
	change.new_port = entry->to_port;
	change.l3_off = IPV4_OFF;
	change.l4_off = flow->l4_off;
	change.proto = flow->proto;
	change.has_l4 = flow->has_l4;
	/* As read: the tuple's dport is the packet's source port. */
	change.old_port = side == REWRITE_SRC ? flow4_sport(flow) : flow4_dport(flow);
	return flow->error ? rewrite4_quote(ctx, &change) : rewrite4(ctx, &change);
}

/*
 * The tuple of an ICMP error is that of the quoted packet's other direction: an error that leaves
 * is keyed like a packet that leaves, one that arrives like one that arrives. Only its outer
 * source may be anybody.
 */

/* Source of a packet that leaves: as its flow has it, else from `addr` (0: only known flows).
 * 1 translated, 0 not, or a DROP_*. */
VERIFIED_ONCE int snat_egress(struct __sk_buff *ctx, struct flow4 *flow, __be32 addr)
{
	const struct ipv4_nat_entry *entry;
	struct ipv4_ct_tuple out;
	int ret;

	if (!flow)
		return 0;
	out = nat_tuple(flow, NAT_F_OUT);
	entry = bpf_map_lookup_elem(&cilium_snat_v4_external, &out);
	if (!entry) {
		/* An error or a pong answers: it belongs to a flow that is known, or to none. */
		if (!addr || flow->error || is_pong(flow))
			return 0;
		ret = nat_supports(flow);
		if (!ret)
			ret = snat_create(ctx, &out, addr);
		if (ret < 0)
			return ret;
		entry = bpf_map_lookup_elem(&cilium_snat_v4_external, &out);
	}
	nat_note(ctx, &out, entry);
	if (!entry)
		return DROP_NAT_NO_MAPPING;
	ret = nat_rewrite(ctx, flow, entry, REWRITE_SRC);
	return ret < 0 ? ret : 1;
}

/* Destination of a packet that arrives, if it answers a translated flow.
 * 1 translated, 0 not, or a DROP_*. */
VERIFIED_ONCE int snat_ingress(struct __sk_buff *ctx, struct flow4 *flow)
{
	const struct ipv4_nat_entry *entry;
	struct ipv4_ct_tuple in;
	int ret;

	if (!flow)
		return 0;
	in = nat_tuple(flow, NAT_F_IN);
	entry = bpf_map_lookup_elem(&cilium_snat_v4_external, &in);
	nat_note(ctx, &in, entry);
	if (!entry)
		return 0;
	ret = nat_rewrite(ctx, flow, entry, REWRITE_DST);
	return ret < 0 ? ret : 1;
}
