/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Services: an address in front of several backends.
 *
 * A service is a row of cilium_lb4_services_v2 with slot 0 and one row per backend with slots
 * 1..count. A flow keeps its backend in a conntrack entry of its own (TUPLE_F_SERVICE), so a
 * change of the service touches new flows only; a flow whose backend is gone gets another.
 */
#pragma once

#include "common.h"
#include "config.h"
#include "conntrack.h"
#include "drop_reasons.h"
#include "flow.h"
#include "metrics.h"
#include "mind.h"
#include "rewrite.h"

enum svc_flag {
	SVC_F_EXTERNAL_IP = 1,
	SVC_F_NODEPORT = 2,
	SVC_F_EXT_LOCAL_SCOPE = 4,
	SVC_F_HOSTPORT = 8,
	SVC_F_AFFINITY = 16,
	SVC_F_LOADBALANCER = 32,
	SVC_F_ROUTABLE = 64, /* may be reached from outside; a ClusterIP may not */
	SVC_F_SOURCE_RANGE = 128,
};

enum svc_flag2 {
	SVC_F2_LOCALREDIRECT = 1,
	SVC_F2_L7_LOADBALANCER = 4,
	SVC_F2_INT_LOCAL_SCOPE = 16,
	SVC_F2_TWO_SCOPES = 32,
	SVC_F2_SOURCE_RANGE_DENY = 64, /* of slot 0; of a backend row: quarantined */
	SVC_F2_FWD_MODE_DSR = 128,
};

enum svc_scope {
	SVC_SCOPE_EXTERNAL = 0,
	SVC_SCOPE_INTERNAL = 1,
};

enum backend_state {
	BACKEND_ACTIVE = 0,
	BACKEND_TERMINATING = 1, /* keeps its flows, gets no new ones: no row points at it */
	BACKEND_QUARANTINED = 2,
	BACKEND_MAINTENANCE = 3,
};

const volatile enum svc_flag btf_svc_flag = SVC_F_EXTERNAL_IP;
const volatile enum svc_flag2 btf_svc_flag2 = SVC_F2_LOCALREDIRECT;
const volatile enum svc_scope btf_svc_scope = SVC_SCOPE_EXTERNAL;
const volatile enum backend_state btf_backend_state = BACKEND_ACTIVE;

struct lb4_key {
	__be32 address;
	__be16 dport;
	__u16 backend_slot; /* 0: the service itself */
	__u8 proto;
	__u8 scope; /* enum svc_scope */
	__u16 pad;
};

struct lb4_service {
	union {
		__u32 backend_id; /* slots 1.. */
		__u32 affinity_timeout; /* slot 0, s */
	};
	__u16 count; /* slot 0: number of backends */
	__be16 rev_nat_index;
	__u8 flags; /* enum svc_flag */
	__u8 flags2; /* enum svc_flag2 */
	__u16 qcount;
};

struct lb4_backend {
	__be32 address;
	__be16 port;
	__u8 proto;
	__u8 flags; /* enum backend_state */
	__u16 cluster_id;
	__u8 zone;
	__u8 pad;
};

struct lb4_reverse_nat {
	__be32 address;
	__be16 port;
} __attribute__((packed));

struct lb4_affinity_key {
	__u64 client_id; /* address, or network namespace cookie at the socket */
	__be16 rev_nat_id;
	__u8 netns_cookie; /* 1: client_id is a cookie */
	__u8 pad1;
	__u32 pad2;
};

struct lb_affinity_value {
	__u64 last_used; /* monotonic clock, s */
	__u32 backend_id;
	__u32 pad;
};

struct lb_affinity_match {
	__u32 backend_id;
	__be16 rev_nat_id;
	__u16 pad;
};

struct lb4_src_range_key {
	__u32 prefixlen; /* 32 + prefix of the address */
	__be16 rev_nat_id;
	__u16 pad;
	__be32 addr;
};

_Static_assert(sizeof(struct lb4_key) == 12, "cilium_lb4_services_v2 key");
_Static_assert(sizeof(struct lb4_service) == 12, "cilium_lb4_services_v2 value");
_Static_assert(sizeof(struct lb4_backend) == 12, "cilium_lb4_backends value");
_Static_assert(sizeof(struct lb4_reverse_nat) == 6, "cilium_lb4_reverse_nat value");
_Static_assert(sizeof(struct lb4_affinity_key) == 16, "cilium_lb4_affinity key");
_Static_assert(sizeof(struct lb_affinity_value) == 16, "cilium_lb4_affinity value");
_Static_assert(sizeof(struct lb_affinity_match) == 8, "cilium_lb_affinity_match key");
_Static_assert(sizeof(struct lb4_src_range_key) == 12, "cilium_lb4_source_range key");

/* The next five: written by the agent, read by the datapath. Capacity: Cilium's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lb4_key);
	__type(value, struct lb4_service);
} cilium_lb4_services_v2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* backend id */
	__type(value, struct lb4_backend);
} cilium_lb4_backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be16); /* rev_nat_index */
	__type(value, struct lb4_reverse_nat);
} cilium_lb4_reverse_nat SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lb_affinity_match);
	__type(value, __u8);
} cilium_lb_affinity_match SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lb4_src_range_key);
	__type(value, __u8);
} cilium_lb4_source_range SEC(".maps");

/* Written and read by the datapath. Capacity: clients remembered; the oldest make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct lb4_affinity_key);
	__type(value, struct lb_affinity_value);
} cilium_lb4_affinity SEC(".maps");

#define MAGLEV_TABLE_SIZE 1021 /* prime; the smallest of Cilium's sizes above 1000 */

struct maglev_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32[MAGLEV_TABLE_SIZE]); /* backend ids */
};

/* Written by the agent, read by the datapath: one look-up table per service. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be16); /* rev_nat_index */
	__array(values, struct maglev_table);
} cilium_lb4_maglev SEC(".maps");

/* The service at an address and port, as the outside sees it: slot and scope are 0. */
static __always_inline void lb4_key_set(struct lb4_key *key, const struct flow4 *flow)
{
	word32 *words = (void *)key;

	words[0] = flow->tuple.daddr;
	words[1] = flow4_dport(flow);
	words[2] = flow->proto;
}

/* The same of a usual packet, without reading the rest of its flow: most packets are for no service.
 * False: a fragment, or not in the linear part. */
static __always_inline bool lb4_key_peek(struct __sk_buff *ctx, const struct iphdr *ip4,
					 struct lb4_key *key)
{
	const struct frag_ports *ports = (const void *)ip4 + ipv4_hlen(ip4);
	word32 *words = (void *)key;

	if (ip4->protocol != IPPROTO_TCP && ip4->protocol != IPPROTO_UDP)
		return false;
	if (ipv4_is_fragment(ip4) || (const void *)(ports + 1) > ctx_data_end(ctx))
		return false;
	words[0] = ip4->daddr;
	words[1] = ports->dport;
	words[2] = ip4->protocol;
	return true;
}

static __always_inline void lb4_tell(struct __sk_buff *ctx, const struct lb4_key *key,
				     const struct lb4_service *svc)
{
	if (mind_armed(ctx)) {
		__u32 index = svc ? bpf_ntohs(svc->rev_nat_index) : 0;
		struct mind_note note = MIND_NOTE(MIND_SERVICE, 0, index);

		mind_fill(&note, key, sizeof(*key), svc, sizeof(*svc));
		mind_write(ctx, &note);
	}
}

static __always_inline const struct lb4_service *
lb4_lookup_service(struct __sk_buff *ctx, struct lb4_key *key, bool internal)
{
	const struct lb4_service *svc;

	svc = bpf_map_lookup_elem(&cilium_lb4_services_v2, key);
	if (svc && internal && svc->flags2 & SVC_F2_TWO_SCOPES) {
		key->scope = SVC_SCOPE_INTERNAL;
		svc = bpf_map_lookup_elem(&cilium_lb4_services_v2, key);
	}
	/* The row of any address is for sockets of a node: on the wire that address is forged. */
	if (svc && unlikely(!key->address))
		svc = NULL;
	lb4_tell(ctx, key, svc);
	return svc;
}

static __always_inline const struct lb4_backend *lb4_backend(struct __sk_buff *ctx, __u32 id)
{
	const struct lb4_backend *backend = bpf_map_lookup_elem(&cilium_lb4_backends, &id);

	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_BACKEND, 0, id);

		mind_fill(&note, &id, sizeof(id), backend, sizeof(*backend));
		mind_write(ctx, &note);
	}
	return backend;
}

/* May this client use the service? */
static __always_inline bool lb4_source_allowed(const struct lb4_service *svc, __be32 saddr)
{
	struct lb4_src_range_key key = {
		.prefixlen = 64, .rev_nat_id = svc->rev_nat_index, .addr = saddr,
	};
	bool listed;

	if (!(svc->flags & SVC_F_SOURCE_RANGE))
		return true;
	listed = bpf_map_lookup_elem(&cilium_lb4_source_range, &key);
	return listed != !!(svc->flags2 & SVC_F2_SOURCE_RANGE_DENY);
}

/* Murmur3's finaliser: spreads a flow's words over 32 bits. */
static __always_inline __u32 hash_mix(__u32 hash)
{
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

static __always_inline __u32 tuple_hash(const struct ipv4_ct_tuple *tuple)
{
	__u32 hash = hash_mix(tuple->saddr ^ 0x9e3779b9);

	hash = hash_mix(hash ^ tuple->daddr);
	hash = hash_mix(hash ^ ((__u32)tuple->sport << 16 | tuple->dport));
	return hash_mix(hash ^ tuple->nexthdr);
}

/* The same flow lands on the same backend on every node that has the same table; 0: no table. */
static __always_inline __u32 lb4_select_maglev(const struct lb4_service *svc,
					       const struct ipv4_ct_tuple *tuple)
{
	__u32 index = tuple_hash(tuple) % MAGLEV_TABLE_SIZE, zero = 0;
	__be16 id = svc->rev_nat_index;
	void *table = bpf_map_lookup_elem(&cilium_lb4_maglev, &id);
	const __u32 *ids = table ? bpf_map_lookup_elem(table, &zero) : NULL;

	/* The compiler knows what % leaves, the verifier does not: keep the test below. */
	asm volatile("" : "+r"(index));
	return ids && index < MAGLEV_TABLE_SIZE ? ids[index] : 0;
}

static __always_inline __u32 lb4_select_random(struct lb4_key *key, const struct lb4_service *svc)
{
	const struct lb4_service *row;

	key->backend_slot = bpf_get_prandom_u32() % svc->count + 1;
	row = bpf_map_lookup_elem(&cilium_lb4_services_v2, key);
	key->backend_slot = 0;
	return row ? row->backend_id : 0;
}

/* Backend this client had before, 0 when forgotten, expired or no longer of this service. */
static __always_inline __u32 lb4_affinity_lookup(struct __sk_buff *ctx,
						 const struct lb4_service *svc, __be32 client)
{
	struct lb4_affinity_key key = { .client_id = client, .rev_nat_id = svc->rev_nat_index };
	struct lb_affinity_value *known = bpf_map_lookup_elem(&cilium_lb4_affinity, &key);
	struct lb_affinity_match match = { .rev_nat_id = svc->rev_nat_index };

	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_LOOKUP, MIND_MAP_AFFINITY, 0);

		mind_fill(&note, &key, sizeof(key), known, sizeof(*known));
		mind_write(ctx, &note);
	}
	if (!known || known->last_used + svc->affinity_timeout <= now_s())
		return 0;
	match.backend_id = known->backend_id;
	return bpf_map_lookup_elem(&cilium_lb_affinity_match, &match) ? known->backend_id : 0;
}

static __always_inline void lb4_affinity_remember(const struct lb4_service *svc, __be32 client,
						  __u32 backend_id)
{
	struct lb4_affinity_key key = { .client_id = client, .rev_nat_id = svc->rev_nat_index };
	struct lb_affinity_value value = { .last_used = now_s(), .backend_id = backend_id };

	bpf_map_update_elem(&cilium_lb4_affinity, &key, &value, BPF_ANY);
}

/* What one packet needs to find its backend. */
struct lb4_request {
	struct lb4_key key;
	struct flow4 *flow;
	bool maglev;
};

/* A backend for a new flow; 0: there is none. */
static __always_inline __u32 lb4_choose(struct __sk_buff *ctx, struct lb4_request *request,
					const struct lb4_service *svc)
{
	__be32 client = request->flow->tuple.saddr;
	__u32 id = 0;

	if (!svc->count)
		return 0;
	if (svc->flags & SVC_F_AFFINITY)
		id = lb4_affinity_lookup(ctx, svc, client);
	if (!id && request->maglev)
		id = lb4_select_maglev(svc, &request->flow->tuple);
	if (!id)
		id = lb4_select_random(&request->key, svc);
	if (!id)
		metrics_count(ctx->len, REASON_LB_NO_BACKEND_SLOT, METRIC_SERVICE);
	return id;
}

static __always_inline void lb4_set_backend(const struct ipv4_ct_tuple *tuple,
					    const struct ct_state *state)
{
	struct ct_entry *entry = ct_find(tuple);

	if (entry) {
		entry->backend_id = state->backend_id;
		entry->rev_nat_index = state->rev_nat_index;
	}
}

/*
 * The backend of this packet's flow, chosen now or earlier. On return `state` has the backend's id
 * and the service's rev_nat_index, and `flow` is as it was. 0 or a DROP_*: without a row in
 * conntrack every packet of the flow would choose anew.
 */
static __always_inline int lb4_local(struct __sk_buff *ctx, struct lb4_request *request,
				     const struct lb4_service *svc, struct ct_state *state,
				     const struct lb4_backend **found)
{
	struct ct_buffer4 ct = {};
	struct flow4 *flow = request->flow;
	const struct lb4_backend *backend = NULL;
	int status = ct_lookup4(ctx, flow, CT_SERVICE, &ct);
	bool fresh = status == CT_NEW || status == CT_REOPENED;

	/* An entry of another service that had this address before says nothing of this one. */
	if (!fresh && ct.state.rev_nat_index == svc->rev_nat_index) {
		state->backend_id = ct.state.backend_id;
		backend = lb4_backend(ctx, state->backend_id);
	}
	state->rev_nat_index = svc->rev_nat_index;
	if (!backend) {
		state->backend_id = lb4_choose(ctx, request, svc);
		backend = state->backend_id ? lb4_backend(ctx, state->backend_id) : NULL;
		if (!backend)
			return DROP_NO_SERVICE;
		if (status == CT_NEW && ct_create4(ctx, flow, CT_SERVICE, state) < 0)
			return DROP_CT_CREATE_FAILED;
		if (status != CT_NEW)
			lb4_set_backend(&flow->tuple, state);
	}
	/* a flow that a terminating backend keeps is no reason for others to go there */
	if (svc->flags & SVC_F_AFFINITY && backend->flags == BACKEND_ACTIVE)
		lb4_affinity_remember(svc, flow->tuple.saddr, state->backend_id);
	*found = backend;
	return 0;
}

/* Destination: service -> backend. 0 or a DROP_*. */
static __always_inline int lb4_xlate(struct __sk_buff *ctx, const struct flow4 *flow,
				     const struct lb4_backend *backend)
{
	struct rewrite4 change = {
		.old_addr = flow->tuple.daddr,
		.new_addr = backend->address,
		.old_port = flow4_dport(flow),
		.new_port = backend->port,
		.l3_off = IPV4_OFF,
		.l4_off = flow->l4_off,
		.side = REWRITE_DST,
		.proto = flow->proto,
		.has_l4 = flow->has_l4,
	};

	return rewrite4(ctx, &change);
}

/* Source of an answer: backend -> service, as the entry's rev_nat_index says; of an ICMP error the
 * destination of the packet it quotes. Without such a
 * service (it was deleted) the packet stays as it is. 0 or a DROP_*. */
VERIFIED_ONCE int lb4_rev_nat(struct __sk_buff *ctx, const struct flow4 *flow, __u32 rev_nat_index)
{
	const struct lb4_reverse_nat *service;
	struct rewrite4 change = {};
	__be16 index = rev_nat_index;

	service = bpf_map_lookup_elem(&cilium_lb4_reverse_nat, &index);
	if (!service || !flow)
		return 0;
	change.old_addr = flow->tuple.saddr;
	change.new_addr = service->address;
	change.old_port = flow4_sport(flow);
	change.new_port = service->port;
	change.l3_off = IPV4_OFF;
	change.l4_off = flow->l4_off;
	change.side = REWRITE_SRC;
	change.proto = flow->proto;
	change.has_l4 = flow->has_l4;
	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_NAT, REWRITE_SRC, bpf_ntohs(index));

		mind_fill(&note, &flow->tuple, sizeof(flow->tuple), service, sizeof(*service));
		mind_write(ctx, &note);
	}
	return flow->error ? rewrite4_quote(ctx, &change) : rewrite4(ctx, &change);
}
