/* SPDX-License-Identifier: GPL-2.0 */
/* cilium_lxc: the endpoints of this node, by address. */
#pragma once

#include "common.h"
#include "eth.h"
#include "ipcache.h"
#include "mind.h"

enum endpoint_flag {
	ENDPOINT_F_HOST = 1, /* an address of the node itself */
};

const volatile enum endpoint_flag btf_endpoint_flag = ENDPOINT_F_HOST;

struct endpoint_key {
	__be32 ip4;
	__u32 ip_rest[3]; /* rest of an IPv6 address, else 0 */
	__u8 family; /* enum address_family */
	__u8 key;
	__u16 cluster_id;
};

struct endpoint_info {
	__u32 ifindex; /* host end of the pod's veth */
	__u16 unused;
	__u16 lxc_id; /* endpoint id */
	__u32 flags; /* enum endpoint_flag */
	__u32 pad;
	struct mac mac; /* the pod's eth0 */
	struct mac node_mac; /* host end of its veth */
	__u32 sec_id;
	__u32 parent_ifindex;
	__u32 pad2[2];
};

_Static_assert(sizeof(struct endpoint_key) == 20, "cilium_lxc key");
_Static_assert(sizeof(struct endpoint_info) == 48, "cilium_lxc value");

/* Written by the agent, read by all programs. Capacity: every endpoint id. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65535);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint_key);
	__type(value, struct endpoint_info);
} cilium_lxc SEC(".maps");

static __always_inline const struct endpoint_info *
endpoint_lookup4(struct __sk_buff *ctx, __be32 addr)
{
	struct endpoint_key key IN_WORDS;
	const struct endpoint_info *ep;

	*(word64 *)&key.ip4 = addr;
	*(word64 *)&key.ip_rest[1] = 0;
	*(word32 *)&key.family = FAMILY_IPV4;
	ep = bpf_map_lookup_elem(&cilium_lxc, &key);
	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_LOOKUP, MIND_MAP_LXC, 0);

		mind_fill(&note, &key, sizeof(key), ep, sizeof(*ep));
		mind_write(ctx, &note);
	}
	return ep;
}
