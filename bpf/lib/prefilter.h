/* SPDX-License-Identifier: GPL-2.0 */
/* Prefilter: sources that are turned away before the kernel has made a packet of the frame. */
#pragma once

#include "common.h"

struct cidr4_key {
	__u32 prefixlen; /* of the address; 32 in the exact map */
	__be32 addr;
};

_Static_assert(sizeof(struct cidr4_key) == 8, "cilium_cidr_v4 keys");

/* Both written by the agent, read here. Capacity: Cilium's. Networks: */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct cidr4_key);
	__type(value, __u8);
} cilium_cidr_v4_dyn SEC(".maps");

/* Single addresses: */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct cidr4_key);
	__type(value, __u8);
} cilium_cidr_v4_fix SEC(".maps");

static __always_inline bool prefilter_denies(__be32 saddr)
{
	struct cidr4_key key = { .prefixlen = 32, .addr = saddr };

	return bpf_map_lookup_elem(&cilium_cidr_v4_fix, &key) ||
	       bpf_map_lookup_elem(&cilium_cidr_v4_dyn, &key);
}
