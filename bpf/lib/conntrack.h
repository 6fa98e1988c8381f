/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Connection tracking: is this packet the first of its flow, one more, or an answer?
 *
 * One entry per flow, keyed by the tuple of its answers (flow.h). A packet is looked up as an
 * answer, with its tuple as read, and turned round, as one that opens or continues a flow: first
 * what its ports make likely. Service entries (a VIP's flow and its backend) are looked up once,
 * as read.
 */
#pragma once

#include "common.h"
#include "config.h"
#include "drop_reasons.h"
#include "flow.h"
#include "mind.h"
#include "signal.h"

enum ct_status {
	CT_NEW = 0,
	CT_ESTABLISHED = 1,
	CT_REPLY = 2,
	CT_RELATED = 3, /* an ICMP error about a flow */
	CT_REOPENED = 4, /* a SYN on a flow that was closing */
};

/* As seen by the endpoint, or towards a service. */
enum ct_dir {
	CT_EGRESS = 0,
	CT_INGRESS = 1,
	CT_SERVICE = 2,
};

enum ct_entry_flag {
	CT_F_RX_CLOSING = 1 << 0,
	CT_F_TX_CLOSING = 1 << 1,
	CT_F_LB_LOOPBACK = 1 << 3,
	CT_F_SEEN_NON_SYN = 1 << 4,
	CT_F_NODE_PORT = 1 << 5,
	CT_F_PROXY_REDIRECT = 1 << 6,
	CT_F_DSR = 1 << 7,
	CT_F_FROM_L7LB = 1 << 8,
	CT_F_FROM_TUNNEL = 1 << 10,
};

const volatile enum ct_status btf_ct_status = CT_NEW;
const volatile enum ct_dir btf_ct_dir = CT_EGRESS;
const volatile enum ct_entry_flag btf_ct_entry_flag = CT_F_RX_CLOSING;

#define CT_CLOSING (CT_F_RX_CLOSING | CT_F_TX_CLOSING)
/* The flow was translated on its way here, and its answers have to be translated back. */
#define CT_F_TRANSLATED (CT_F_NODE_PORT | CT_F_DSR | CT_F_LB_LOOPBACK)

struct ct_entry {
	__u64 rx_packets;
	union {
		__u64 rx_bytes;
		__u64 backend_id; /* of a service entry */
	};
	__u64 tx_packets;
	__u64 tx_bytes;
	__u32 lifetime; /* monotonic clock, s: garbage from then on */
	__u16 flags; /* enum ct_entry_flag */
	__be16 rev_nat_index; /* service the flow went through, 0 none */
	__u16 ifindex;
	__u8 tx_flags_seen; /* TCP flags told of in each direction */
	__u8 rx_flags_seen;
	__u32 src_sec_id; /* identity of who opened it */
	__u32 last_tx_report; /* monotonic clock, s */
	__u32 last_rx_report;
};

_Static_assert(sizeof(struct ct_entry) == 56, "cilium_ct4_global value");

/* Written and read by the datapath; the agent removes what has expired. Capacity: flows of the
 * node; when full, the least recently used makes room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct ipv4_ct_tuple);
	__type(value, struct ct_entry);
} cilium_ct4_global SEC(".maps");

/* The same for everything but TCP. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct ipv4_ct_tuple);
	__type(value, struct ct_entry);
} cilium_ct_any4_global SEC(".maps");

/* What an entry says about its flow, and what a new entry is to say. */
struct ct_state {
	__be16 rev_nat_index;
	__u16 flags; /* enum ct_entry_flag */
	__u32 src_sec_id;
	__u32 backend_id;
};

/* Result of the conntrack tail calls, for the program that follows. */
struct ct_buffer4 {
	struct flow4 flow; /* its tuple is turned round when the status is not CT_REPLY */
	struct ct_state state;
	__s32 status; /* enum ct_status or a DROP_* */
	__u8 monitor; /* something new: worth telling in spite of aggregation */
	__u8 pad[3];
	__u32 now_s; /* monotonic clock when the flow was read */
};

_Static_assert(sizeof(struct ct_buffer4) == 48, "cilium_tail_call_buffer4 value");

/* Written by the conntrack tail calls, read by the next program on the same CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ct_buffer4);
} cilium_tail_call_buffer4 SEC(".maps");

static __always_inline struct ct_buffer4 *ct_buffer(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cilium_tail_call_buffer4, &zero);
}

/* Seconds in 2^26 ns, in units of 2^-32: a division would take as long as half a look-up. The result is
 * behind the exact one by 67 ms at most, and by another half a second after 30 years. */
#define COARSE_SHIFT 26
#define COARSE_SECONDS 288230376ull

/* The monotonic clock as of the last tick: to the second that is enough, and reading the hardware's
 * counter for every packet cost more than anything else here. A suspended machine ages no flow. */
static __always_inline __u32 now_s(void)
{
	return (bpf_ktime_get_coarse_ns() >> COARSE_SHIFT) * COARSE_SECONDS >> 32;
}

static __always_inline struct ct_entry *ct_find(const struct ipv4_ct_tuple *tuple)
{
	struct ipv4_ct_tuple key IN_WORDS;
	struct ct_entry *entry;

	tuple_copy(&key, tuple);
	if (tuple->nexthdr == IPPROTO_TCP) {
		entry = bpf_map_lookup_elem(&cilium_ct4_global, &key);
		/* Two calls, not one with a choice of maps: that the kernel could not inline. */
		asm volatile("" : "+r"(entry));
		return entry;
	}
	return bpf_map_lookup_elem(&cilium_ct_any4_global, &key);
}

/* Tuple flags of the answers to packets in this direction: IN for egress, OUT for ingress, SERVICE
 * for services. Without branches, which the verifier would follow into everything behind. */
static __always_inline __u8 ct_answer_flags(enum ct_dir dir)
{
	__u8 service = dir >> 1;

	return service * TUPLE_F_SERVICE | (~dir & 1 & ~service) * TUPLE_F_IN;
}

static __always_inline void tuple_turn(struct ipv4_ct_tuple *tuple)
{
	struct tuple_words *words = (void *)tuple;

	words->addrs = words->addrs << 32 | words->addrs >> 32;
	words->ports = words->ports << 16 | words->ports >> 16;
	words->rest ^= TUPLE_F_IN << 8;
}

/* How long an entry lives from now, s. */
static __always_inline __u32 ct_lifetime(const struct ct_entry *entry, bool tcp, enum ct_dir dir)
{
	if (!tcp)
		return dir == CT_SERVICE ? ct_timeout_service_any_s : ct_timeout_any_s;
	if ((entry->flags & CT_CLOSING) == CT_CLOSING)
		return ct_timeout_tcp_fin_s;
	if (!(entry->flags & CT_F_SEEN_NON_SYN))
		return ct_timeout_tcp_syn_s;
	return dir == CT_SERVICE ? ct_timeout_service_tcp_s : ct_timeout_tcp_s;
}

/* Prolongs the entry; true when the flow has news: a flag not seen before, or a long silence. */
static __always_inline bool ct_touch(struct ct_entry *entry, const struct flow4 *flow,
				     enum ct_dir dir, __u32 now)
{
	bool tcp = flow->tuple.nexthdr == IPPROTO_TCP;
	__u8 *seen, flags;
	__u32 *report;

	seen = dir == CT_INGRESS ? &entry->rx_flags_seen : &entry->tx_flags_seen;
	report = dir == CT_INGRESS ? &entry->last_rx_report : &entry->last_tx_report;
	flags = *seen | flow->tcp_flags;
	if (tcp && !(flow->tcp_flags & TCP_FLAG_SYN))
		entry->flags |= CT_F_SEEN_NON_SYN;
	entry->lifetime = now + ct_lifetime(entry, tcp, dir);
	if (flags == *seen && *report + ct_report_interval_s > now)
		return false;
	*seen = flags;
	*report = now;
	return true;
}

/* FIN and RST close their own direction; a RST before both sides spoke closes both. */
static __always_inline void ct_close(struct ct_entry *entry, const struct flow4 *flow,
				     enum ct_dir dir)
{
	bool refused = flow->tcp_flags & TCP_FLAG_RST &&
		       !(entry->rx_flags_seen & entry->tx_flags_seen & TCP_FLAG_SYN);

	if (dir == CT_SERVICE || refused)
		entry->flags |= CT_CLOSING;
	else
		entry->flags |= dir == CT_INGRESS ? CT_F_RX_CLOSING : CT_F_TX_CLOSING;
}

static __always_inline void ct_account(struct ct_entry *entry, __u32 bytes, enum ct_dir dir)
{
	/* Two CPUs may carry two directions of one flow, never one counter's: no atomics needed
	 * for statistics that only a rescheduled sender could spoil. */
	if (dir == CT_INGRESS) {
		entry->rx_packets++;
		entry->rx_bytes += bytes;
	} else if (dir == CT_EGRESS) {
		entry->tx_packets++;
		entry->tx_bytes += bytes;
	}
}

/* A packet that asks for a connection, and does not answer one that asked. */
static __always_inline bool ct_opens(const struct flow4 *flow)
{
	return (flow->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN;
}

/* Is the flow's entry changed by this packet? true when it is opened again, which an answer does
 * not. */
static __always_inline bool ct_advance(struct ct_entry *entry, const struct flow4 *flow,
				       enum ct_dir dir, bool answer)
{
	if (likely(!(flow->tcp_flags & (TCP_FLAG_FIN | TCP_FLAG_SYN | TCP_FLAG_RST))))
		return false;
	if (flow->tcp_flags & (TCP_FLAG_FIN | TCP_FLAG_RST)) {
		ct_close(entry, flow, dir);
	} else if (!answer && ct_opens(flow) && entry->flags & CT_CLOSING) {
		entry->flags &= ~(CT_CLOSING | CT_F_SEEN_NON_SYN);
		entry->tx_flags_seen = 0;
		entry->rx_flags_seen = 0;
		return true;
	}
	return false;
}

static __always_inline void ct_read_state(const struct ct_entry *entry, struct ct_state *state,
					  enum ct_dir dir)
{
	state->rev_nat_index = entry->rev_nat_index;
	state->flags = entry->flags;
	state->src_sec_id = entry->src_sec_id;
	state->backend_id = dir == CT_SERVICE ? (__u32)entry->backend_id : 0;
}

static __always_inline void ct_note(struct __sk_buff *ctx, const struct flow4 *flow,
				    const struct ct_state *state, enum ct_dir dir, int status)
{
	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_CT, dir, status);

		mind_fill(&note, &flow->tuple, sizeof(flow->tuple), state, sizeof(*state));
		note.found = status != CT_NEW;
		mind_write(ctx, &note);
	}
}

static __always_inline int ct_hit(struct __sk_buff *ctx, struct ct_entry *entry,
				  const struct flow4 *flow, enum ct_dir dir, bool answer,
				  struct ct_buffer4 *result)
{
	bool reopened;

	ct_read_state(entry, &result->state, dir);
	result->monitor = 1;
	if (unlikely(flow->related))
		return CT_RELATED;
	reopened = ct_advance(entry, flow, dir, answer);
	result->monitor = ct_touch(entry, flow, dir, result->now_s) || reopened;
	ct_account(entry, ctx->len, dir);
	if (unlikely(reopened))
		return CT_REOPENED;
	return answer ? CT_REPLY : CT_ESTABLISHED;
}

/* No such entry any more, and counted as if it had never been made: what was removed is the agent's
 * to count. */
VERIFIED_ONCE int ct_forget(const struct ipv4_ct_tuple *tuple)
{
	struct ipv4_ct_tuple key IN_WORDS;

	if (!tuple)
		return 0;
	tuple_copy(&key, tuple);
	if (key.nexthdr == IPPROTO_TCP) {
		if (!bpf_map_delete_elem(&cilium_ct4_global, &key))
			runtime_add(RUNTIME_CONFIG_CT_TCP_CREATED, -1);
	} else if (!bpf_map_delete_elem(&cilium_ct_any4_global, &key)) {
		runtime_add(RUNTIME_CONFIG_CT_ANY_CREATED, -1);
	}
	return 0;
}

/*
 * When both sides have closed, a SYN from the one that used to answer is no answer: it opens a flow
 * of its own, which policy has to judge by the port it goes to. The old entry would take the rest of
 * that flow for answers; it goes. true when it did.
 */
static __always_inline bool ct_answered_anew(const struct ct_entry *entry,
					     const struct flow4 *flow)
{
	if (likely(!ct_opens(flow)) || (entry->flags & CT_CLOSING) != CT_CLOSING)
		return false;
	ct_forget(&flow->tuple);
	return true;
}

/* A guess that decides what is looked up first: servers have the lower ports, and what opens a flow
 * may continue one that answered. The packet's source port is the tuple's dport. */
static __always_inline bool ct_may_answer(const struct flow4 *flow)
{
	return bpf_ntohs(flow->tuple.dport) <= bpf_ntohs(flow->tuple.sport) || ct_opens(flow);
}

/* An enum ct_status; `flow->tuple` and `result`, whose clock is set, are filled for what follows. */
static __always_inline int ct_look(struct __sk_buff *ctx, struct flow4 *flow, enum ct_dir dir,
				   struct ct_buffer4 *result)
{
	bool answer = dir != CT_SERVICE && ct_may_answer(flow);
	struct ct_entry *entry;
	int status = CT_NEW;

	tuple_set_flags(&flow->tuple, ct_answer_flags(dir));
	if (!answer && dir != CT_SERVICE)
		tuple_turn(&flow->tuple);
	entry = ct_find(&flow->tuple);
	if (entry && answer && ct_answered_anew(entry, flow))
		entry = NULL;
	if (unlikely(!entry && dir != CT_SERVICE)) {
		answer = !answer;
		tuple_turn(&flow->tuple);
		entry = ct_find(&flow->tuple);
		if (!entry && answer)
			tuple_turn(&flow->tuple);
	}
	if (likely(entry)) {
		status = ct_hit(ctx, entry, flow, dir, answer, result);
	} else {
		*(word64 *)&result->state = 0;
		result->state.backend_id = 0;
		result->monitor = 1;
	}
	ct_note(ctx, flow, &result->state, dir, status);
	return status;
}

/* The same for those to whom the look-up is one thing among others. */
VERIFIED_ONCE int ct_lookup4(struct __sk_buff *ctx, struct flow4 *flow, enum ct_dir dir,
			     struct ct_buffer4 *result)
{
	if (!flow || !result)
		return DROP_INVALID_TC_BUFFER;
	result->now_s = now_s();
	return ct_look(ctx, flow, dir, result);
}

static __always_inline long ct_write(const struct ipv4_ct_tuple *key,
				     const struct ct_entry *entry, __u64 flags)
{
	if (key->nexthdr == IPPROTO_TCP)
		return bpf_map_update_elem(&cilium_ct4_global, key, entry, flags);
	return bpf_map_update_elem(&cilium_ct_any4_global, key, entry, flags);
}

/* Makes the entry the last look-up missed; 0 or DROP_CT_CREATE_FAILED. */
VERIFIED_ONCE int ct_create4(struct __sk_buff *ctx, const struct flow4 *flow, enum ct_dir dir,
			     const struct ct_state *state)
{
	struct ct_entry entry = {};
	struct ipv4_ct_tuple key IN_WORDS;
	long ret;

	if (!flow || !state)
		return DROP_INVALID_TC_BUFFER;
	tuple_copy(&key, &flow->tuple);
	/* An error opens nothing, least of all a way for answers to it. */
	if (flow->error)
		return 0;
	entry.flags = state->flags;
	entry.rev_nat_index = state->rev_nat_index;
	entry.src_sec_id = state->src_sec_id;
	if (dir == CT_SERVICE)
		entry.backend_id = state->backend_id;
	ct_touch(&entry, flow, dir, now_s());
	ct_account(&entry, ctx->len, dir);
	ret = ct_write(&key, &entry, BPF_NOEXIST);
	if (!ret)
		runtime_count(key.nexthdr == IPPROTO_TCP ? RUNTIME_CONFIG_CT_TCP_CREATED :
							   RUNTIME_CONFIG_CT_ANY_CREATED);
	else if (ret == -EEXIST) /* now by a service, or no longer: not one more */
		ret = ct_write(&key, &entry, BPF_EXIST);
	if (!ret)
		return 0;
	signal_send(ctx, SIGNAL_CT_FILL_UP);
	return DROP_CT_CREATE_FAILED;
}

/*
 * The flow of the packet, its status, and both in the buffer for what follows. `again`: the other
 * side of a packet whose sender's side has just been looked up, on this CPU and with nothing of the
 * flow changed since (DELIVERY_TRACKED): what was read then, and the time, still hold. 0 or a DROP_*.
 */
static __always_inline int ct_lookup_into_buffer(struct __sk_buff *ctx, enum ct_dir dir, bool again)
{
	struct ct_buffer4 *buffer = ct_buffer();
	int ret;

	if (!buffer)
		return DROP_INVALID_TC_BUFFER;
	if (again) {
		/* As it was read: the look-up may have turned it. */
		if (buffer->status != CT_REPLY)
			tuple_turn(&buffer->flow.tuple);
	} else {
		ret = flow4_read(ctx, &buffer->flow);
		if (unlikely(ret < 0))
			return ret;
		buffer->now_s = now_s();
	}
	buffer->status = ct_look(ctx, &buffer->flow, dir, buffer);
	return 0;
}
