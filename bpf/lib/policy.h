/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Policy: may this identity talk to this endpoint on this port?
 *
 * One map per endpoint. Its key is a prefix: identity and direction in full, then protocol, then
 * the port, so that a range of ports is a few entries. Two look-ups, the peer's identity and 0
 * ("anybody"), and a deny in either wins. Within one identity the longest prefix answers: whoever
 * writes the map leaves out the allows a wider deny covers, and writes an allow-everything entry
 * for a direction no policy selects.
 */
#pragma once

#include "common.h"
#include "config.h"
#include "conntrack.h"
#include "drop_reasons.h"
#include "encap.h"
#include "events.h"
#include "identity.h"
#include "mind.h"

#define POLICY_STATIC_BITS 40
#define POLICY_FULL_BITS 64

struct policy_key {
	__u32 prefixlen; /* 40 + 0, 8 (protocol) or 9..24 (and bits of the port) */
	__u32 sec_label; /* the other side's identity, 0 anybody */
	__u8 egress; /* 1: sent by the endpoint */
	__u8 protocol;
	__be16 dport; /* ICMP: the type */
};

struct policy_entry {
	__be16 proxy_port;
	__u8 flags; /* bit 0 deny; bits 7..3 prefix length beyond the static 40 */
	__u8 auth_type;
	__u32 pad;
	__u64 packets;
	__u64 bytes;
};

#define POLICY_F_DENY 1

_Static_assert(sizeof(struct policy_key) == 12, "cilium_policy key");
_Static_assert(sizeof(struct policy_entry) == 24, "cilium_policy value");

/* Written by the agent (counters: by the datapath), read by this endpoint's programs. Pinned as
 * cilium_policy_NNNNN. Capacity: Cilium's. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
} cilium_policy SEC(".maps");

/* Which directions of an endpoint no policy selects: 1 << enum ct_dir, by endpoint id. There the
 * map says "anybody, anything", and more packets of a flow that passed need not ask it again.
 * Written by the agent: a bit is set after all other entries have left the map, and cleared before
 * the one that allows everything does. 0, as it begins: every packet asks. Capacity: every endpoint
 * id. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} cilium_unselected SEC(".maps");

/* What the deciding entry said of the packet: Cilium's numbers. */
enum policy_match {
	POLICY_MATCH_NONE = 0,
	POLICY_MATCH_L3_ONLY = 1,
	POLICY_MATCH_L3_L4 = 2,
	POLICY_MATCH_L4_ONLY = 3,
	POLICY_MATCH_ALL = 4,
	POLICY_MATCH_L3_PROTO = 5,
	POLICY_MATCH_PROTO_ONLY = 6,
};

const volatile enum policy_match btf_policy_match = POLICY_MATCH_NONE;

#define POLICY_VERDICT_VERSION 1

/* Version 1 record, 32 bytes, then the packet. */
struct policy_verdict_notify {
	struct event_header common;
	__u32 remote_label;
	__s32 verdict; /* 0 allow, > 0 proxy port, < 0 drop */
	__be16 dst_port;
	__u8 proto;
	__u8 bits; /* 1..0 direction (1 ingress 2 egress), 2 IPv6, 5..3 match, 6 audited */
	__u8 auth_type;
	__u8 pad[3];
};

_Static_assert(sizeof(struct policy_verdict_notify) == 32, "POLICY_VERDICT record");

struct policy_query {
	__u32 remote_label;
	enum ct_dir dir;
	__u8 proto;
	__be16 dport;
	/* The answer: */
	__u8 match; /* enum policy_match */
	bool audited;
};

static __always_inline struct policy_entry *policy_find(const struct policy_query *query,
							__u32 label)
{
	struct {
		__u32 pad; /* what follows the prefix length is compared as one word */
		struct policy_key key;
	} IN_WORDS of;

	of.key.prefixlen = POLICY_FULL_BITS;
	*(word64 *)&of.key.sec_label = label | (__u64)(query->dir == CT_EGRESS) << 32 |
				       (__u64)query->proto << 40 | (__u64)query->dport << 48;
	return bpf_map_lookup_elem(&cilium_policy, &of.key);
}

static __always_inline __u8 policy_bits(const struct policy_entry *entry)
{
	return entry->flags >> 3;
}

static __always_inline __u8 policy_match_type(const struct policy_entry *entry, bool by_identity)
{
	__u8 bits = policy_bits(entry);

	if (by_identity)
		return !bits ? POLICY_MATCH_L3_ONLY :
		       bits <= 8 ? POLICY_MATCH_L3_PROTO : POLICY_MATCH_L3_L4;
	return !bits ? POLICY_MATCH_ALL :
	       bits <= 8 ? POLICY_MATCH_PROTO_ONLY : POLICY_MATCH_L4_ONLY;
}

static __always_inline void policy_note(struct __sk_buff *ctx, const struct policy_query *query,
					const struct policy_entry *entry, int verdict)
{
	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_POLICY, query->match, verdict);
		struct policy_key key = {
			.prefixlen = POLICY_FULL_BITS,
			.sec_label = query->remote_label,
			.egress = query->dir == CT_EGRESS,
			.protocol = query->proto,
			.dport = query->dport,
		};

		mind_fill(&note, &key, sizeof(key), entry, sizeof(*entry));
		mind_write(ctx, &note);
	}
}

/* 0, or why not: DROP_POLICY (nothing matched), DROP_POLICY_DENY. */
VERIFIED_ONCE int policy_lookup(struct __sk_buff *ctx, struct policy_query *query)
{
	struct policy_entry *peer, *anybody, *winner;
	int verdict = 0;

	if (!query)
		return DROP_POLICY;
	peer = policy_find(query, query->remote_label);
	anybody = policy_find(query, IDENTITY_UNKNOWN);
	winner = peer;
	/* A deny beats an allow; among equals the longer prefix, then the named peer. */
	if (anybody && (!peer || (!(peer->flags & POLICY_F_DENY) &&
				  (anybody->flags & POLICY_F_DENY ||
				   policy_bits(anybody) > policy_bits(peer)))))
		winner = anybody;
	if (!winner) {
		query->match = POLICY_MATCH_NONE;
		verdict = DROP_POLICY;
	} else {
		query->match = policy_match_type(winner, winner == peer);
		__sync_fetch_and_add(&winner->packets, 1);
		__sync_fetch_and_add(&winner->bytes, ctx->len);
		if (winner->flags & POLICY_F_DENY)
			verdict = DROP_POLICY_DENY;
	}
	policy_note(ctx, query, winner, verdict);
	return verdict;
}

/*
 * The verdict for a packet that is no answer: 0 or a DROP_*. Two things policy does not touch:
 * "fragmentation needed" always passes, or path MTU discovery dies; and a pod never sends tunnel
 * packets itself, for their VNI would let it claim any identity.
 */
static __always_inline int policy_decide(struct __sk_buff *ctx, struct policy_query *query,
					 const struct ct_buffer4 *ct)
{
	int verdict;

	if (query->dir == CT_EGRESS && query->proto == IPPROTO_UDP &&
	    query->dport == bpf_htons(VXLAN_PORT) && enable_tunnel)
		return DROP_ENCAP_PROHIBITED;
	if (!enable_policy)
		return 0;
	if (query->proto == IPPROTO_ICMP && ct->flow.icmp_type == ICMP4_DEST_UNREACH &&
	    ct->flow.icmp_code == ICMP4_FRAG_NEEDED)
		return 0;
	verdict = policy_lookup(ctx, query);
	if (verdict < 0 && policy_audit_mode) {
		query->audited = true;
		return 0;
	}
	return verdict;
}

/* Tells of a verdict; the caller leaves out what is allowed and not new. */
static __always_inline void policy_notify(struct __sk_buff *ctx, const struct policy_query *query,
					  int verdict)
{
	struct policy_verdict_notify record = {
		.common = event_header(ctx, EVENT_POLICY_VERDICT, 0, POLICY_VERDICT_VERSION),
		.remote_label = query->remote_label,
		.verdict = verdict,
		.dst_port = query->dport,
		.proto = query->proto,
		.bits = (query->dir == CT_INGRESS ? 1 : 2) | query->match << 3 |
			(query->audited ? 1 << 6 : 0),
	};

	if (enable_policy)
		event_emit(ctx, &record, sizeof(record), record.common.cap_len);
}

/* The question policy asks about a packet whose conntrack look-up missed or hit forwards: the
 * tuple has been turned round, its dport is the packet's. */
static __always_inline struct policy_query policy_question(const struct ct_buffer4 *ct,
							   enum ct_dir dir, __u32 remote_label)
{
	return (struct policy_query){
		.remote_label = remote_label,
		.dir = dir,
		.proto = ct->flow.proto,
		.dport = ct->flow.proto == IPPROTO_ICMP ? bpf_htons(ct->flow.icmp_type) : ct->flow.tuple.dport,
	};
}

/* Is this packet's fate known without the policy map? Answers and errors of a flow pass because
 * the flow was allowed. */
static __always_inline bool policy_is_settled(const struct ct_buffer4 *ct, const enum ct_dir dir)
{
	__u32 key = endpoint_id;
	const __u32 *open;

	if (ct->status == CT_REPLY || ct->status == CT_RELATED)
		return true;
	if (ct->status != CT_ESTABLISHED)
		return false;
	open = bpf_map_lookup_elem(&cilium_unselected, &key);
	return open && *open & 1U << dir;
}

/*
 * May this packet pass? 0 or a DROP_*. Answers and errors of a flow pass because the flow was
 * allowed; everything else is decided, and told of when new or refused.
 */
VERIFIED_ONCE int policy_enforce(struct __sk_buff *ctx, const struct ct_buffer4 *ct,
				 enum ct_dir dir, __u32 remote_label)
{
	struct policy_query query;
	int verdict;

	if (!ct)
		return DROP_INVALID_TC_BUFFER;
	query = policy_question(ct, dir, remote_label);
	if (ct->status == CT_REPLY || ct->status == CT_RELATED)
		return 0;
	verdict = policy_decide(ctx, &query, ct);
	if (verdict < 0 || query.audited || ct->status != CT_ESTABLISHED)
		policy_notify(ctx, &query, verdict);
	return verdict;
}
