/* SPDX-License-Identifier: GPL-2.0 */
/* Maps of the node that are created, as Cilium's initMaps does, before anything uses them. */
#pragma once

#include "common.h"

struct lb4_reverse_sk_key {
	__u64 cookie;
	__be32 address;
	__be16 port;
	__u16 pad;
};

struct lb4_reverse_sk {
	__be32 address;
	__be16 port;
	__be16 rev_nat_index;
};

struct world_cidr_key {
	__u32 prefixlen;
	__be32 addr;
};

_Static_assert(sizeof(struct lb4_reverse_sk_key) == 16, "cilium_lb4_reverse_sk key");
_Static_assert(sizeof(struct lb4_reverse_sk) == 8, "cilium_lb4_reverse_sk value");
_Static_assert(sizeof(struct world_cidr_key) == 8, "cilium_world_cidrs4 key");

/* To be written and read at the sockets: the service a socket's backend stands for. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct lb4_reverse_sk_key);
	__type(value, struct lb4_reverse_sk);
} cilium_lb4_reverse_sk SEC(".maps");

/* To be written by the agent: index of the encryption key in use. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} cilium_encrypt_state SEC(".maps");

/* To be written by the agent: what lies outside, where the ipcache leaves pods out. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct world_cidr_key);
	__type(value, __u8);
} cilium_world_cidrs4 SEC(".maps");
