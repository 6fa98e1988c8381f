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

/* What an index of cilium_metrics stands for, as its bytes lie in memory. */
struct metrics_key {
	__u8 reason; /* 0 forwarded, < 130 see enum metric_reason, else a drop */
	__u8 dir;
	__u16 reserved;
};

struct metrics_value {
	__u64 count;
	__u64 bytes;
};

_Static_assert(sizeof(struct metrics_key) == 4, "cilium_metrics key");
_Static_assert(sizeof(struct metrics_value) == 16, "cilium_metrics value");

/* Written by every program, read by the agent. Capacity: all reasons in three directions. An array,
 * where Cilium has a hash: a packet through the tunnel is counted five times, and nothing else that
 * is done to it as often costs as much as a hash's look-up. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32); /* struct metrics_key, as a number */
	__type(value, struct metrics_value);
} cilium_metrics SEC(".maps");

static __always_inline void metrics_count(__u32 bytes, __u8 reason, enum metric_dir dir)
{
	__u32 index = reason | (__u32)dir << 8;
	struct metrics_value *value;

	value = bpf_map_lookup_elem(&cilium_metrics, &index);
	if (!value)
		return;
	/* One CPU's own value: nobody else writes it, so no atomic is needed. */
	value->count++;
	value->bytes += bytes;
}
