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

struct metrics_value {
	__u64 count;
	__u64 bytes;
};

_Static_assert(sizeof(struct metrics_value) == 16, "cilium_metrics value");

#define METRICS_DIR_BITS 2

/* Written by every program, read by the agent. The index: reason (0 forwarded, below 130 enum
 * metric_reason, else a drop), in the two lowest bits the direction, so that what every packet
 * counts lies side by side. Capacity: all reasons. An array, where Cilium has a hash: a packet
 * through the tunnel is counted five times, and nothing else that is done to it as often costs as
 * much as a hash's look-up. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct metrics_value);
} cilium_metrics SEC(".maps");

static __always_inline void metrics_count(__u32 bytes, __u8 reason, enum metric_dir dir)
{
	__u32 index = (__u32)reason << METRICS_DIR_BITS | dir;
	struct metrics_value *value;

	value = bpf_map_lookup_elem(&cilium_metrics, &index);
	if (!value)
		return;
	/* One CPU's own value: nobody else writes it, so no atomic is needed. */
	value->count++;
	value->bytes += bytes;
}
