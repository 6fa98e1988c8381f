/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Policy: may this identity talk to this endpoint on this port?
 *
 * One map per endpoint: a hash, for its look-ups cost the same whether it has ten entries or all it
 * can hold. A hash finds only the key it is asked for. So a packet asks for each key that could hold
 * it, the most specific first: its port; the blocks of 2, 4, 8 ... ports that its port lies in (a
 * range of ports is a few such blocks); its protocol; everything. These are the classes of entries,
 * and of most an endpoint has none: cilium_policy_absent tells which, and those are not asked for.
 *
 * Two identities are asked about, the peer's and 0 ("anybody"), and a deny in either wins. Within
 * one identity the most specific entry answers: whoever writes the map leaves out the allows a
 * wider deny covers, and writes an allow-everything entry for a direction no policy selects.
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

/* As in Cilium 1.13, but for blocks of ports, which it did not have: they use spare bits. */
struct policy_key {
	__u32 sec_label; /* the other side's identity, 0 anybody */
	__be16 dport; /* ICMP: the type; of a block its first port; 0 with the protocol: all */
	__u8 protocol; /* 0: all */
	__u8 egress_wild; /* the bits below */
};

#define POLICY_EGRESS 1 /* sent by the endpoint */
#define POLICY_WILD_SHIFT 1 /* how many low bits of the port may be anything, 0..15: a block */
#define POLICY_PORT_ZERO 0x20 /* port 0 itself (ICMP: an echo reply), not all of them */

/* The same in a key as one word. */
#define POLICY_DPORT_AT 32
#define POLICY_PROTOCOL_AT 48
#define POLICY_EGRESS_WILD_AT 56
#define POLICY_KEY_PORT \
	(0xffffULL << POLICY_DPORT_AT | (__u64)POLICY_PORT_ZERO << POLICY_EGRESS_WILD_AT)
#define POLICY_KEY_PROTOCOL (0xffULL << POLICY_PROTOCOL_AT)

/* Classes of entries, in the order in which they are asked for; 1..15 are blocks of 2^n ports. */
enum policy_class {
	POLICY_CLASS_PORT = 0,
	POLICY_CLASS_PROTOCOL = 16,
	POLICY_CLASS_ALL = 17,
};

#define POLICY_BLOCKS 15
#define POLICY_CLASSES_BLOCKS (((1U << POLICY_BLOCKS) - 1) << 1)

struct policy_entry {
	__be16 proxy_port;
	__u8 flags; /* bit 0 deny; bits 7..3 how many bits of protocol and port are compared */
	__u8 auth_type;
	__u32 pad;
	__u64 packets;
	__u64 bytes;
};

#define POLICY_F_DENY 1
#define POLICY_NOT_FOUND (-1)

_Static_assert(sizeof(struct policy_key) == 8, "cilium_policy key");
_Static_assert(sizeof(struct policy_entry) == 24, "cilium_policy value");

/* Written by the agent (counters: by the datapath), read by this endpoint's programs. Pinned as
 * cilium_policy_NNNNN. Capacity: Cilium's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
} cilium_policy SEC(".maps");

/* What there is nothing of in an endpoint's policy, so that nobody looks for it. */
struct policy_absent {
	__u64 egress; /* the bits below, of what the endpoint sends */
	__u64 ingress;
};

/* Bits 17..0: 1 << enum policy_class, entries that name a peer; the same for "anybody" from here. */
#define POLICY_ANYBODY_AT 32
/* No policy selects the endpoint in this direction: the map says "anybody, anything", and more
 * packets of a flow that passed need not ask it again. */
#define POLICY_UNSELECTED (1ULL << 63)

/* By endpoint id. Written by the agent: a bit is cleared before the first entry of its class is
 * written (POLICY_UNSELECTED: before anything else is), and set after the last has left. 0, as it
 * begins: every packet asks for everything. Capacity: every endpoint id. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct policy_absent);
} cilium_policy_absent SEC(".maps");

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
	__u64 absent; /* of this endpoint and direction */
	/* The answer: */
	__u8 match; /* enum policy_match */
	bool audited;
};

static __always_inline struct policy_entry *policy_find(__u64 words)
{
	struct policy_key of IN_WORDS;

	*(word64 *)&of = words;
	return bpf_map_lookup_elem(&cilium_policy, &of);
}

/* The key of a packet's very port. */
static __always_inline __u64 policy_port_key(const struct policy_query *query, __u32 label)
{
	__u64 bits = (query->dir == CT_EGRESS ? POLICY_EGRESS : 0) |
		     (query->dport ? 0 : POLICY_PORT_ZERO);

	return label | (__u64)query->dport << POLICY_DPORT_AT |
	       (__u64)query->proto << POLICY_PROTOCOL_AT | bits << POLICY_EGRESS_WILD_AT;
}

/* The key of the entry of a class that holds the same packet. */
static __always_inline __u64 policy_key_of(__u64 port_key, __u32 class)
{
	__u64 wider = port_key & ~POLICY_KEY_PORT;
	__u32 port = bpf_ntohs(port_key >> POLICY_DPORT_AT);

	if (class == POLICY_CLASS_PORT)
		return port_key;
	if (class == POLICY_CLASS_PROTOCOL)
		return wider;
	if (class == POLICY_CLASS_ALL)
		return wider & ~POLICY_KEY_PROTOCOL;
	return wider | (__u64)bpf_htons(port & ~0U << class) << POLICY_DPORT_AT |
	       (__u64)class << (POLICY_EGRESS_WILD_AT + POLICY_WILD_SHIFT);
}

/* What the entry of a class says, if there is one: class << 1 | POLICY_F_DENY, or NOT_FOUND. */
static __always_inline int policy_ask(__u64 port_key, __u32 class)
{
	const struct policy_entry *found = policy_find(policy_key_of(port_key, class));

	return found ? class << 1 | (found->flags & POLICY_F_DENY) : POLICY_NOT_FOUND;
}

/* The same, called: fifteen times inlined it made a program's load a fifth longer. */
VERIFIED_ONCE int policy_ask_block(__u64 port_key, __u32 class)
{
	return policy_ask(port_key, class);
}

/*
 * What one identity's most specific entry for a packet says, as policy_ask. The word, not the entry:
 * a function that is verified once cannot give a pointer back, and so the word holds even when the
 * entry is taken away after it has spoken.
 */
VERIFIED_ONCE int policy_search(__u64 port_key, __u32 absent)
{
	__u32 class, blocks = ~absent & POLICY_CLASSES_BLOCKS;
	int said;

	if (!(absent & 1 << POLICY_CLASS_PORT)) {
		said = policy_ask(port_key, POLICY_CLASS_PORT);
		if (said >= 0)
			return said;
	}
	for (class = 1; unlikely(class <= POLICY_BLOCKS && blocks >> class); class++) {
		said = blocks & 1 << class ? policy_ask_block(port_key, class) : POLICY_NOT_FOUND;
		if (said >= 0)
			return said;
	}
	if (!(absent & 1 << POLICY_CLASS_PROTOCOL)) {
		said = policy_ask(port_key, POLICY_CLASS_PROTOCOL);
		if (said >= 0)
			return said;
	}
	return absent & 1 << POLICY_CLASS_ALL ? POLICY_NOT_FOUND
					      : policy_ask(port_key, POLICY_CLASS_ALL);
}

static __always_inline __u8 policy_match_type(__u32 class, bool by_identity)
{
	if (class == POLICY_CLASS_ALL)
		return by_identity ? POLICY_MATCH_L3_ONLY : POLICY_MATCH_ALL;
	if (class == POLICY_CLASS_PROTOCOL)
		return by_identity ? POLICY_MATCH_L3_PROTO : POLICY_MATCH_PROTO_ONLY;
	return by_identity ? POLICY_MATCH_L3_L4 : POLICY_MATCH_L4_ONLY;
}

static __always_inline void policy_note(struct __sk_buff *ctx, const struct policy_query *query,
					const struct policy_entry *entry, int verdict)
{
	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_POLICY, query->match, verdict);
		struct policy_key key = {
			.sec_label = query->remote_label,
			.dport = query->dport,
			.protocol = query->proto,
			.egress_wild = query->dir == CT_EGRESS ? POLICY_EGRESS : 0,
		};

		mind_fill(&note, &key, sizeof(key), entry, sizeof(*entry));
		mind_write(ctx, &note);
	}
}

/* The entry that decides for a packet, to count it; NULL if it has been taken away meanwhile. */
static __always_inline struct policy_entry *policy_winner(struct policy_query *query, int *said)
{
	__u64 peers = policy_port_key(query, query->remote_label);
	__u64 anybodys = policy_port_key(query, IDENTITY_UNKNOWN);
	int peer = policy_search(peers, query->absent), anybody = POLICY_NOT_FOUND;
	bool named;

	/* A deny beats an allow; among equals the more specific, then the named peer. */
	if (peer < 0 || !(peer & POLICY_F_DENY))
		anybody = policy_search(anybodys, query->absent >> POLICY_ANYBODY_AT);
	named = peer >= 0 && (anybody < 0 || (!(anybody & POLICY_F_DENY) && peer <= anybody));
	*said = named ? peer : anybody;
	if (*said < 0)
		return NULL;
	query->match = policy_match_type(*said >> 1, named);
	return policy_find(policy_key_of(named ? peers : anybodys, *said >> 1));
}

/* 0, or why not: DROP_POLICY (nothing matched), DROP_POLICY_DENY. */
VERIFIED_ONCE int policy_lookup(struct __sk_buff *ctx, struct policy_query *query)
{
	struct policy_entry *winner;
	int said, verdict = 0;

	if (!query)
		return DROP_POLICY;
	query->match = POLICY_MATCH_NONE;
	winner = policy_winner(query, &said);
	if (said < 0)
		verdict = DROP_POLICY;
	else if (said & POLICY_F_DENY)
		verdict = DROP_POLICY_DENY;
	if (winner) {
		__sync_fetch_and_add(&winner->packets, 1);
		__sync_fetch_and_add(&winner->bytes, ctx->len);
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
							   enum ct_dir dir, __u32 remote_label,
							   __u64 absent)
{
	return (struct policy_query){
		.remote_label = remote_label,
		.dir = dir,
		.absent = absent,
		.proto = ct->flow.proto,
		.dport = ct->flow.proto == IPPROTO_ICMP ? bpf_htons(ct->flow.icmp_type) : ct->flow.tuple.dport,
	};
}

/* Is this packet's fate known without the policy map? Answers and errors of a flow pass because
 * the flow was allowed. If not: what not to look for there, for policy_enforce. */
static __always_inline bool policy_is_settled(const struct ct_buffer4 *ct, const enum ct_dir dir,
					      __u64 *absent)
{
	const struct policy_absent *mine;
	__u32 key = endpoint_id;

	if (ct->status == CT_REPLY || ct->status == CT_RELATED)
		return true;
	mine = bpf_map_lookup_elem(&cilium_policy_absent, &key);
	if (mine)
		*absent = dir == CT_EGRESS ? mine->egress : mine->ingress;
	return ct->status == CT_ESTABLISHED && *absent & POLICY_UNSELECTED;
}

/*
 * May this packet pass? 0 or a DROP_*. Answers and errors of a flow pass because the flow was
 * allowed; everything else is decided, and told of when new or refused.
 */
VERIFIED_ONCE int policy_enforce(struct __sk_buff *ctx, const struct ct_buffer4 *ct,
				 enum ct_dir dir, __u32 remote_label, __u64 absent)
{
	struct policy_query query;
	int verdict;

	if (!ct)
		return DROP_INVALID_TC_BUFFER;
	query = policy_question(ct, dir, remote_label, absent);
	if (ct->status == CT_REPLY || ct->status == CT_RELATED)
		return 0;
	verdict = policy_decide(ctx, &query, ct);
	if (verdict < 0 || query.audited || ct->status != CT_ESTABLISHED)
		policy_notify(ctx, &query, verdict);
	return verdict;
}
