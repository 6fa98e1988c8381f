/* SPDX-License-Identifier: GPL-2.0 */
/* cilium_ipcache: address -> identity, and the node to reach it through. */
#pragma once

#include "common.h"
#include "config.h"
#include "identity.h"
#include "mind.h"

enum address_family {
	FAMILY_IPV4 = 1,
	FAMILY_IPV6 = 2,
};

struct ipcache_key {
	__u32 prefixlen; /* 32 bits before the address + prefix of the address */
	__u16 cluster_id;
	__u8 pad;
	__u8 family;
	__be32 ip4;
	__u32 ip_rest[3]; /* rest of an IPv6 address, else 0 */
};

struct remote_endpoint_info {
	__u32 sec_identity;
	__be32 tunnel_endpoint; /* node of the address, 0: not behind the tunnel */
	__u16 pad;
	__u8 key; /* encryption key index */
	__u8 flags;
};

_Static_assert(sizeof(struct ipcache_key) == 24, "cilium_ipcache key");
_Static_assert(sizeof(struct remote_endpoint_info) == 12, "cilium_ipcache value");

#define IPCACHE_STATIC_PREFIX 32

/* Written by the agent, read by all programs. Capacity: Cilium's, but grown on demand. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 512000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_key);
	__type(value, struct remote_endpoint_info);
} cilium_ipcache SEC(".maps");

static __always_inline const struct remote_endpoint_info *
ipcache_lookup4(struct __sk_buff *ctx, __be32 addr)
{
	const struct remote_endpoint_info *info;
	struct {
		__u32 pad; /* what follows the prefix length is compared in words of eight bytes */
		struct ipcache_key key;
	} IN_WORDS of;

	of.key.prefixlen = IPCACHE_STATIC_PREFIX + 32;
	*(word64 *)&of.key.cluster_id = (__u64)addr << 32 | (__u32)FAMILY_IPV4 << 24;
	*(word64 *)&of.key.ip_rest[0] = 0;
	of.key.ip_rest[2] = 0;
	info = bpf_map_lookup_elem(&cilium_ipcache, &of.key);
	if (mind_armed(ctx)) {
		struct mind_note note = MIND_NOTE(MIND_LOOKUP, MIND_MAP_IPCACHE, 0);

		mind_fill(&note, &of.key, sizeof(of.key), info, sizeof(*info));
		mind_write(ctx, &note);
	}
	return info;
}

/* Whoever is not in the cache is the world. */
static __always_inline __u32 ipcache_identity4(struct __sk_buff *ctx, __be32 addr)
{
	const struct remote_endpoint_info *info = ipcache_lookup4(ctx, addr);

	return info && info->sec_identity ? info->sec_identity : IDENTITY_WORLD;
}

/*
 * Who a packet without a mark is from: whoever its address belongs to. Two things it cannot be:
 * the host, whose address NAT may have put there, and a pod behind the tunnel, whose packets come
 * out of the tunnel and nowhere else.
 */
static __always_inline __u32 ipcache_sender4(struct __sk_buff *ctx, __be32 addr)
{
	const struct remote_endpoint_info *info = ipcache_lookup4(ctx, addr);

	if (!info || !info->sec_identity || info->sec_identity == IDENTITY_HOST)
		return IDENTITY_WORLD;
	if (enable_tunnel && info->tunnel_endpoint)
		return IDENTITY_WORLD;
	return info->sec_identity;
}
