/* SPDX-License-Identifier: GPL-2.0 */
/* cilium_signals: what the datapath wants the agent to do now. */
#pragma once

#include "common.h"

enum signal {
	SIGNAL_NAT_FILL_UP = 0, /* a port was hard to find: collect NAT garbage */
	SIGNAL_CT_FILL_UP = 1, /* an entry could not be made: collect conntrack garbage */
};

const volatile enum signal btf_signal = SIGNAL_NAT_FILL_UP;

struct signal_record {
	__u32 signal; /* enum signal */
	__u32 proto; /* 0: IPv4 */
};

_Static_assert(sizeof(struct signal_record) == 8, "cilium_signals record");

/* Written by the datapath, read by the agent. Capacity: one ring per CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 0);
	__type(key, __u32);
	__type(value, __u32);
} cilium_signals SEC(".maps");

static __always_inline void signal_send(struct __sk_buff *ctx, enum signal signal)
{
	struct signal_record record = { .signal = signal };

	bpf_perf_event_output(ctx, &cilium_signals, BPF_F_CURRENT_CPU, &record, sizeof(record));
}
