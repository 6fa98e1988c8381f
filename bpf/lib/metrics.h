/* SPDX-License-Identifier: GPL-2.0 */
/* cilium_metrics: packets and bytes by reason and direction, per CPU. */
#pragma once

#include "common.h"
#include "drop_reasons.h"

/* Direction as seen by the endpoint (metrics) or by the node (devices). */
enum metric_dir {
	METRIC_INGRESS = 1,
	METRIC_EGRESS = 2,
	METRIC_SERVICE = 3,
};

const volatile enum metric_dir btf_metric_dir = METRIC_INGRESS;

struct metrics_key {
	__u8 reason; /* 0 forwarded, < 130 see enum metric_reason, else a drop */
	__u8 dir;
	__u16 reserved[3];
};

struct metrics_value {
	__u64 count;
	__u64 bytes;
};

_Static_assert(sizeof(struct metrics_key) == 8, "cilium_metrics key");
_Static_assert(sizeof(struct metrics_value) == 16, "cilium_metrics value");

/* Written by every program, read by the agent. Capacity: all reasons in three directions. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct metrics_key);
	__type(value, struct metrics_value);
} cilium_metrics SEC(".maps");

static __always_inline void metrics_count(__u32 bytes, __u8 reason, enum metric_dir dir)
{
	struct metrics_key key IN_WORDS;
	struct metrics_value first = { .count = 1, .bytes = bytes };
	struct metrics_value *value;

	*(word64 *)&key = reason | (__u32)dir << 8;
	value = bpf_map_lookup_elem(&cilium_metrics, &key);
	/* One CPU's own value: nobody else writes it, so no atomic is needed. */
	if (likely(value)) {
		value->count++;
		value->bytes += bytes;
	} else {
		bpf_map_update_elem(&cilium_metrics, &key, &first, BPF_ANY);
	}
}
