/* SPDX-License-Identifier: GPL-2.0 */
/* cilium_events: the perf rings through which the datapath tells what it did. */
#pragma once

#include "common.h"
#include "config.h"

enum event_type {
	EVENT_DROP = 1,
	EVENT_DEBUG = 2,
	EVENT_CAPTURE = 3,
	EVENT_TRACE = 4,
	EVENT_POLICY_VERDICT = 5,
};

const volatile enum event_type btf_event_type = EVENT_DROP;

/* Which source file reported; Cilium 1.13's numbers. */
enum source_file {
	FILE_BPF_HOST = 1,
	FILE_BPF_LXC = 2,
	FILE_BPF_OVERLAY = 3,
	FILE_BPF_XDP = 4,
};

const volatile enum source_file btf_source_file = FILE_BPF_HOST;

/* Words of cilium_runtime_config the agent may change while programs run. */
enum runtime_config {
	RUNTIME_CONFIG_UTIME_OFFSET = 0, /* boot clock to wall clock, 512 ns units */
	RUNTIME_CONFIG_AGENT_LIVENESS = 1, /* boot clock of the agent's last sign of life, ns */
	RUNTIME_CONFIG_AGGREGATION = 2, /* enum monitor_aggregation */
	RUNTIME_CONFIG_MIND = 3, /* non-zero: tell the datapath's own mind, mind.h */
	RUNTIME_CONFIG_MIND_LOST = 4, /* records of cilium_mind that found the ring full */
	/* Entries the datapath made and the agent removed, of the tables that evict when they are
	 * full: made, less removed, less those there are, is how many were evicted. */
	RUNTIME_CONFIG_CT_TCP_CREATED = 5,
	RUNTIME_CONFIG_CT_TCP_REMOVED = 6,
	RUNTIME_CONFIG_CT_ANY_CREATED = 7,
	RUNTIME_CONFIG_CT_ANY_REMOVED = 8,
	RUNTIME_CONFIG_NAT_CREATED = 9,
	RUNTIME_CONFIG_NAT_REMOVED = 10,
	RUNTIME_CONFIG_SLOTS = 16,
};

const volatile enum runtime_config btf_runtime_config = RUNTIME_CONFIG_MIND;

/* How much of the packet follows a record. */
#define CAPTURE_BYTES 128u

/* First 16 bytes of every record with a packet behind it. */
struct event_header {
	__u8 type; /* enum event_type */
	__u8 subtype; /* drop reason, observation point */
	__u16 source; /* endpoint id of the reporting program */
	__u32 hash; /* skb flow hash */
	__u32 orig_len; /* bytes of the packet */
	__u16 cap_len; /* bytes of it that follow the record */
	__u16 version; /* layout version of the record */
};

_Static_assert(sizeof(struct event_header) == 16, "common part of cilium_events records");

/* Written by the datapath, read by the agent: one ring per CPU, opened by the reader. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 0); /* libbpf: the number of CPUs */
	__type(key, __u32);
	__type(value, __u32);
} cilium_events SEC(".maps");

/* Written by the agent, read by the datapath. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RUNTIME_CONFIG_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} cilium_runtime_config SEC(".maps");

static __always_inline __u64 runtime_config_get(enum runtime_config index)
{
	__u32 key = index;
	__u64 *value = bpf_map_lookup_elem(&cilium_runtime_config, &key);

	return value ? *value : 0;
}

/* `more` of what `index` counts, on whatever CPU. */
static __always_inline void runtime_add(enum runtime_config index, __u64 more)
{
	__u32 key = index;
	__u64 *value = bpf_map_lookup_elem(&cilium_runtime_config, &key);

	if (value)
		__sync_fetch_and_add(value, more);
}

static __always_inline void runtime_count(enum runtime_config index)
{
	runtime_add(index, 1);
}

static __always_inline struct event_header
event_header(struct __sk_buff *ctx, __u8 type, __u8 subtype, __u16 version)
{
	__u32 len = ctx->len;

	return (struct event_header){
		.type = type,
		.subtype = subtype,
		.source = endpoint_id,
		.hash = bpf_get_hash_recalc(ctx),
		.orig_len = len,
		.cap_len = len < CAPTURE_BYTES ? len : CAPTURE_BYTES,
		.version = version,
	};
}

/* The record on the stack, then `cap_len` bytes of the packet, into this CPU's ring. No reader:
 * the helper fails at once and nothing is lost but the news. */
static __always_inline void
event_emit(struct __sk_buff *ctx, void *record, __u32 size, __u32 cap_len)
{
	bpf_perf_event_output(ctx, &cilium_events, BPF_F_CURRENT_CPU | (__u64)cap_len << 32,
			      record, size);
}
